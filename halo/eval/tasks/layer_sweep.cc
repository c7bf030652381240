#include "halo/eval/tasks/layer_sweep.h"

#include <algorithm>
#include <chrono>

#include "halo/base/check.h"
#include "halo/engine/trunk.h"

namespace halo {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A model's answers to items asked together, as they come from its two kinds of requests.
void add_answers(const std::vector<const TaskItem*>& items, const std::vector<Score>& scores,
                 const std::vector<std::string>& texts, std::vector<Answers>& answers) {
  auto score = scores.begin();
  auto text = texts.begin();
  for (const TaskItem* item : items) {
    Answers& own = answers.emplace_back();
    own.scores.assign(score, score + std::ssize(item->scored));
    own.texts.assign(text, text + std::ssize(item->generated));
    score += std::ssize(item->scored);
    text += std::ssize(item->generated);
  }
}

}  // namespace

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

std::vector<std::vector<Answers>> LayerSweep::ask(const std::vector<const TaskItem*>& items) {
  std::vector<ScoreRequest> scored;
  std::vector<GenerateRequest> generated;
  for (const TaskItem* item : items) {
    scored.insert(scored.end(), item->scored.begin(), item->scored.end());
    generated.insert(generated.end(), item->generated.begin(), item->generated.end());
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
      cost_.seconds += seconds;
      cost_.layer_flops += trunk.cost().flops - before.flops;
      cost_.head_flops += heads;
      if (own) {
        cost_.whole_seconds += layers * seconds;
      } else {
        cost_.whole_layer_flops += trunk.cost().whole_flops - before.whole_flops;
        cost_.whole_head_flops += heads;
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

std::vector<std::vector<Outcome>> LayerSweep::run(
    const Task& task, const std::function<void(size_t done)>& on_items) {
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
  std::vector<std::vector<Outcome>> outcomes(mixers_.size() + 1);
  for (size_t first = 0, last = 0; first < task.items.size(); first = last) {
    std::vector<const TaskItem*> items;
    size_t prompts = 0;
    for (int64_t tokens = 0; last < task.items.size(); ++last) {
      const TaskItem& item = task.items[last];
      tokens += size(item);
      prompts += item.generated.size();
      if (last > first && (tokens > max_tokens_ || prompts > kMostPrompts)) break;
      items.push_back(&item);
    }
    const auto answers = ask(items);
    for (size_t m = 0; m < outcomes.size(); ++m) {
      for (size_t i = 0; i < items.size(); ++i) {
        outcomes[m].push_back(items[i]->judge(answers[m][i]));
      }
    }
    if (on_items) on_items(last);
  }
  return outcomes;
}

}  // namespace halo
