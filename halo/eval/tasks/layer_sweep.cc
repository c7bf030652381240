#include "halo/eval/tasks/layer_sweep.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "halo/base/check.h"
#include "halo/engine/trunk.h"

namespace halo {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A model's answers to items asked together, as they come from its two kinds of requests.
void add_answers(std::span<const TaskItem> items, const std::vector<Score>& scores,
                 const std::vector<std::string>& texts, std::vector<Answers>& answers) {
  auto score = scores.begin();
  auto text = texts.begin();
  for (const TaskItem& item : items) {
    Answers& own = answers.emplace_back();
    own.scores.assign(score, score + std::ssize(item.scored));
    own.texts.assign(text, text + std::ssize(item.generated));
    score += std::ssize(item.scored);
    text += std::ssize(item.generated);
  }
}

auto values_of(auto& cost) {
  return std::array{&cost.layer_flops,      &cost.whole_layer_flops, &cost.head_flops,
                    &cost.whole_head_flops, &cost.seconds,           &cost.whole_seconds};
}

}  // namespace

SweepCost& SweepCost::operator+=(const SweepCost& more) {
  const auto to = values_of(*this);
  const auto from = values_of(more);
  for (size_t i = 0; i < to.size(); ++i) *to[i] += *from[i];
  return *this;
}

LayerSweep::LayerSweep(const LanguageModel& like, std::shared_ptr<const DecoderWeights> weights,
                       std::vector<Mixer> mixers, int64_t max_bytes)
    : like_(like),
      weights_(std::move(weights)),
      mixers_(std::move(mixers)),
      max_tokens_(std::max<int64_t>(1, max_bytes / Trunk::bytes_per_token(*weights_))) {
  HALO_CHECK(mixers_.size() == weights_->layers.size(), "layer sweep: {} mixers, {} layers",
             mixers_.size(), weights_->layers.size());
}

std::shared_ptr<const DecoderWeights> LayerSweep::swapped(size_t layer) const {
  auto weights = std::make_shared<DecoderWeights>(*weights_);
  weights->layers[layer].mixer = mixers_[layer];
  return weights;
}

std::vector<std::vector<Answers>> LayerSweep::ask(std::span<const TaskItem> items,
                                                  SweepCost& cost) const {
  std::vector<ScoreRequest> scored;
  std::vector<GenerateRequest> generated;
  for (const TaskItem& item : items) {
    scored.insert(scored.end(), item.scored.begin(), item.scored.end());
    generated.insert(generated.end(), item.generated.begin(), item.generated.end());
  }
  const size_t num_models = mixers_.size() + 1;
  std::vector<std::vector<Score>> scores(num_models);
  std::vector<std::vector<std::string>> texts(num_models);
  const double head = 2 * static_cast<double>(weights_->head.value.numel());
  const auto layers = static_cast<double>(mixers_.size());
  // The model's own calls first, then everybody's.
  const auto all = [&](const auto& use) {
    Trunk trunk;
    for (size_t i = 0; i < num_models; ++i) {
      const size_t m = (i + num_models - 1) % num_models;  // itself first
      const bool own = m == mixers_.size();
      const auto start = std::chrono::steady_clock::now();
      const TrunkCost before = trunk.cost();
      LanguageModel model(like_, own ? weights_ : swapped(m),
                          own ? trunk.recording(like_.options())
                              : trunk.replaying(like_.options(), static_cast<int64_t>(m)));
      use(model, m);
      const double seconds = seconds_since(start);
      const double heads = head * static_cast<double>(model.num_predictions());
      cost.seconds += seconds;
      cost.layer_flops += trunk.cost().flops - before.flops;
      cost.head_flops += heads;
      if (own) {
        cost.whole_seconds += layers * seconds;
      } else {
        cost.whole_layer_flops += trunk.cost().whole_flops - before.whole_flops;
        cost.whole_head_flops += heads;
      }
    }
  };
  if (!scored.empty()) {
    all([&](LanguageModel& model, size_t m) { scores[m] = model.score(scored); });
  }
  if (!generated.empty()) {
    all([&](LanguageModel& model, size_t m) { texts[m] = model.generate_until(generated); });
  }
  std::vector<std::vector<Answers>> answers(num_models);
  for (size_t m = 0; m < num_models; ++m) add_answers(items, scores[m], texts[m], answers[m]);
  return answers;
}

std::vector<size_t> LayerSweep::pieces_of(const Task& task) const {
  constexpr size_t kMostPrompts = 256;  // that are begun in one call of generate()
  const auto size = [&](const TaskItem& item) {
    int64_t tokens = 0;
    for (const ScoreRequest& r : item.scored) {
      tokens += std::ssize(like_.encode(r.prompt + r.continuation));
    }
    for (const GenerateRequest& r : item.generated) {
      tokens += std::ssize(like_.encode(r.prompt)) + r.max_tokens;
    }
    return tokens;
  };
  std::vector<size_t> ends;
  int64_t tokens = 0;
  size_t prompts = 0;
  for (size_t i = 0; i < task.items.size(); ++i) {
    const int64_t own = size(task.items[i]);
    tokens += own;
    prompts += task.items[i].generated.size();
    if (i > (ends.empty() ? 0 : ends.back()) && (tokens > max_tokens_ || prompts > kMostPrompts)) {
      ends.push_back(i);
      tokens = own;
      prompts = task.items[i].generated.size();
    }
  }
  if (!task.items.empty()) ends.push_back(task.items.size());
  return ends;
}

std::vector<std::vector<Outcome>> LayerSweep::run(const Task& task,
                                                  const std::function<void(size_t done)>& on_items,
                                                  Communicator& ranks) {
  const std::vector<size_t> ends = pieces_of(task);
  const auto items_of = [&](int64_t piece) {
    const size_t first = piece == 0 ? 0 : ends[piece - 1];
    return std::span(task.items).subspan(first, ends[piece] - first);
  };
  const std::vector<std::string> said = deal(ranks, std::ssize(ends), [&](int64_t piece) {
    SweepCost cost;
    Packer packed;
    for (const std::vector<Answers>& of_model : ask(items_of(piece), cost)) {
      for (const Answers& answers : of_model) pack(answers, packed);
    }
    for (const double* value : values_of(cost)) packed.add(*value);
    if (on_items) on_items(ends[piece]);
    return packed.bytes();
  });
  std::vector<std::vector<Outcome>> outcomes(mixers_.size() + 1);
  for (int64_t piece = 0; piece < std::ssize(ends); ++piece) {
    Unpacker packed(said[piece]);
    for (std::vector<Outcome>& of_model : outcomes) {
      for (const TaskItem& item : items_of(piece)) {
        of_model.push_back(item.judge(unpack_answers(packed)));
      }
    }
    SweepCost cost;
    for (double* value : values_of(cost)) *value = packed.number();
    cost_ += cost;
  }
  return outcomes;
}

}  // namespace halo
