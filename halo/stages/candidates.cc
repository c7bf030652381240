#include "halo/stages/candidates.h"

#include "ATen/ATen.h"
#include "halo/base/progress.h"
#include "halo/base/random.h"

namespace halo {
namespace {

double weighted_text(const TextScores& text, const std::vector<double>& values,
                     const Resample* draw) {
  const std::vector<double> sums = row_sums(text, values), tokens = row_sums(text, text.tokens);
  double sum = 0, count = 0;
  for (size_t r = 0; r < sums.size(); ++r) {
    const double weight = draw ? draw->row[r] : 1;
    sum += weight * sums[r];
    count += weight * tokens[r];
  }
  return sum / count;
}

}  // namespace

double CandidateScores::needle_logprob(const Resample* draw) const {
  double sum = 0, count = 0;
  for (const NeedleItem& item : needles) {
    const double weight = draw ? draw->haystack[static_cast<size_t>(item.haystack)] : 1;
    sum += weight * item.logprob;
    count += weight;
  }
  return sum / count;
}

double CandidateScores::loss(const Resample* draw) const {
  return weighted_text(text, text.loss, draw);
}

double CandidateScores::kl(const Resample* draw) const {
  return weighted_text(text, text.kl, draw);
}

SetFigures CandidateScores::figures(const Resample* draw) const {
  return {needle_logprob(draw), halo::needle_logprob(needles).standard_error, kl(draw)};
}

json::object candidate_to_json(const Layers& layers, const CandidateScores& c) {
  json::array list;
  for (int64_t layer : layers) list.push_back(layer);
  const Estimate needle = needle_logprob(c.needles), kl = mean_kl(c.text), loss = mean_loss(c.text);
  return {{"layers", list},
          {"needle_accuracy", number_or_null(needle_accuracy(c.needles).mean)},
          {"needle_logprob", number_or_null(needle.mean)},
          {"needle_logprob_stderr", number_or_null(needle.standard_error)},
          {"kl", number_or_null(kl.mean)},
          {"kl_stderr", number_or_null(kl.standard_error)},
          {"loss", number_or_null(loss.mean)}};
}

Candidates::Candidates(const SelectRecipe& recipe, const StageContext& context,
                       const DecoderWeights& aligned, const DecoderWeights& attention)
    : context_(context),
      aligned_(aligned),
      attention_(attention),
      text_(context.held_out_batches(select_text(recipe, context))) {
  NeedleArgs args;
  args.lengths = {needle_length(recipe, context)};
  args.haystacks = recipe.needle_haystacks;
  args.depths = even_depths(recipe.needle_questions);
  args.pool = NeedlePool::kSearch;
  args.seed = Random(context.seed(), "select.needles").bits(0);
  tasks_ = make_needles(context.needles(), context.held_out(), args);
  teacher_ = teacher_states(context.teacher().weights, text_);
}

std::vector<CandidateScores> Candidates::score_sets(
    const std::vector<Layers>& kept, const std::function<void(size_t)>& on_set) const {
  return score_all(
      kept.size(),
      [&](size_t set) {
        DecoderWeights model = aligned_;
        for (int64_t layer : kept[set]) model.layers[layer].mixer = attention_.layers[layer].mixer;
        return model;
      },
      on_set);
}

std::vector<CandidateScores> Candidates::score_swaps(
    const std::function<void(size_t)>& on_layer) const {
  return score_all(
      aligned_.layers.size(),
      [&](size_t layer) {
        DecoderWeights model = context_.teacher().weights;
        model.layers[layer].mixer = aligned_.layers[layer].mixer;
        return model;
      },
      on_layer);
}

CandidateScores Candidates::score_teacher() const {
  return score_all(1, [&](size_t) { return context_.teacher().weights; }, {}).front();
}

Resample Candidates::resample(uint64_t index) const {
  const Random random(context_.seed(), "select.bootstrap", index);
  Resample draw;
  draw.haystack.assign(tasks_.size(), 0);
  draw.row.assign(text_.text().rows.size(), 0);
  uint64_t n = 0;
  for (size_t i = 0; i < tasks_.size(); ++i) {
    ++draw.haystack[random.below(n++, static_cast<int64_t>(tasks_.size()))];
  }
  for (size_t i = 0; i < draw.row.size(); ++i) {
    ++draw.row[random.below(n++, static_cast<int64_t>(draw.row.size()))];
  }
  return draw;
}

std::vector<CandidateScores> Candidates::score_all(
    size_t candidates, const std::function<DecoderWeights(size_t)>& model_of,
    const std::function<void(size_t)>& on_candidate) const {
  const std::vector<std::string> scored =
      deal(context_.ranks(), static_cast<int64_t>(candidates), [&](int64_t candidate) {
        const CandidateScores scores = score(model_of(candidate));
        if (on_candidate) on_candidate(candidate);
        Packer packed;
        pack(scores.needles, packed);
        pack(scores.text, packed);
        return packed.bytes();
      });
  std::vector<CandidateScores> all;
  for (const std::string& bytes : scored) {
    Unpacker packed(bytes);
    CandidateScores scores;
    scores.needles = unpack_needles(packed);
    scores.text = unpack_text(packed, text_, &teacher_);
    all.push_back(std::move(scores));
  }
  return all;
}

CandidateScores Candidates::score(const DecoderWeights& carried) const {
  const DecoderWeights model = with_logit_scale(carried, LogitScale{});  // searched for later
  EngineOptions options;
  options.kernels = context_.machine().kernels;
  Engine engine(std::make_shared<DecoderWeights>(model), options);
  Progress needles("needles", std::ssize(tasks_));
  const auto on_haystack = [&](size_t done) { needles.update(static_cast<int64_t>(done)); };
  return {score_needles(engine, tasks_, on_haystack), score_text(model, text_, &teacher_)};
}

}  // namespace halo
