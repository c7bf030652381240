// The search of the logit scale (hypenet.md 2.4): needles beyond the training length first, loss on
// long documents among those that find as many, then the largest a.
#include "halo/stages/scale.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/eval/needle.h"
#include "halo/stages/scale_rule.h"

namespace halo {
namespace {

struct Candidate {
  std::string name;  // "none", "constant 1.5", "500"
  LogitScale scale;
  double a = 0;  // as in ScaleFigures
  std::vector<NeedleItem> needles;
  TextScores text;
  Estimate accuracy, loss;  // of needles and of text beyond the training length
};

std::vector<Candidate> make_candidates(const ScaleRecipe& recipe) {
  const auto candidate = [](const std::string& name, const LogitScale& scale, double a) {
    return Candidate{name, scale, a, {}, {}, {}, {}};
  };
  std::vector<Candidate> out;
  out.push_back(candidate("none", {}, std::numeric_limits<double>::infinity()));
  out.push_back(candidate("constant 1.5", {LogitScale::Kind::kConstant, 1.5, 0}, 0));
  for (double a : recipe.candidates) {
    out.push_back(candidate(fmt::format("{:.0f}", a), {LogitScale::Kind::kLogPosition, 1, a}, a));
  }
  return out;
}

size_t choose(const std::vector<Candidate>& all) {
  std::vector<ScaleFigures> figures;
  for (const Candidate& c : all) {
    figures.push_back({c.a, c.accuracy.mean, c.accuracy.standard_error, c.loss.mean});
  }
  return choose_scale(figures);
}

std::vector<NeedleItem> items_beyond(const std::vector<NeedleItem>& items, int64_t length) {
  std::vector<NeedleItem> beyond;
  std::ranges::copy_if(items, std::back_inserter(beyond),
                       [&](const NeedleItem& item) { return item.length > length; });
  return beyond;
}

json::object to_json(const Candidate& c, int64_t training_length) {
  return {{"name", c.name},
          {"needle", needles_to_json(c.needles)},
          {"accuracy", number_or_null(c.accuracy.mean)},
          {"accuracy_stderr", number_or_null(c.accuracy.standard_error)},
          {"loss_beyond_training_length", number_or_null(c.loss.mean)},
          {"loss_stderr", number_or_null(c.loss.standard_error)},
          {"training_length", training_length}};
}

}  // namespace

void check_recipe(const ScaleRecipe& recipe, const std::string& file) {
  if (recipe.candidates.empty()) throw_error("{}: scale.candidates must not be empty", file);
  for (double a : recipe.candidates) {
    if (a != std::floor(a)) throw_error("{}: scale.candidates: {} is not an integer", file, a);
  }
}

HeldOutArgs scale_text(const ScaleRecipe& recipe, const std::vector<int64_t>& lengths,
                       int64_t training_length) {
  HeldOutArgs args;
  args.part = TextPart::kSearch;
  args.rows = TextRows::kStream;
  args.row_length = std::min(std::ranges::max(lengths), 4 * training_length);
  args.max_tokens = recipe.documents * args.row_length;
  return args;
}

void run_scale(const ScaleRecipe& recipe, const StageContext& context, const StageArgs& args) {
  at::NoGradGuard no_grad;
  Model model = context.load_student(args.inputs[0], ParameterStore::Use::kFrozen);
  std::vector<Candidate> candidates = make_candidates(recipe);
  const int64_t training_length = context.training_length();
  const std::vector<int64_t> lengths = lengths_beyond(recipe.lengths, training_length);
  const int64_t longest = std::ranges::max(lengths);

  const NeedleArgs needle_args{.lengths = lengths,
                               .haystacks = recipe.haystacks,
                               .depths = even_depths(recipe.questions),
                               .pool = NeedlePool::kSearch,
                               .seed = Random(context.seed(), "scale.needles").bits(0)};
  const std::vector<NeedleTask> tasks =
      make_needles(context.needles(), context.held_out(), needle_args);
  const TextBatches text =
      context.held_out_batches(scale_text(recipe, lengths, training_length), training_length);

  Progress progress(args.name, static_cast<int64_t>(candidates.size()));
  for (size_t i = 0; i < candidates.size(); ++i) {
    Candidate& c = candidates[i];
    const DecoderWeights weights = with_logit_scale(model.weights, c.scale);
    EngineOptions options;
    options.kernels = context.machine().kernels;
    Engine engine(std::make_shared<DecoderWeights>(weights), options);
    Progress needles(c.name + ": needles", std::ssize(tasks));
    c.needles = score_needles(engine, tasks,
                              [&](size_t done) { needles.update(static_cast<int64_t>(done)); });
    c.text = score_text(weights, text);
    c.accuracy = needle_accuracy(items_beyond(c.needles, training_length));
    c.loss = mean_loss(c.text, training_length);
    progress.update(static_cast<int64_t>(i) + 1, fmt::format("{}: needles {:.2f}, loss {:.3f}",
                                                             c.name, c.accuracy.mean, c.loss.mean));
  }
  const size_t chosen = choose(candidates);
  progress.finish(fmt::format("chosen: {}", candidates[chosen].name));

  json::array curve;
  for (const Candidate& c : candidates) curve.push_back(to_json(c, training_length));
  const json::object scale_figures{
      {"rule", kScaleRule}, {"chosen", candidates[chosen].name}, {"candidates", curve}};
  write_json(args.out / "scale.json", scale_figures);
  model.config.attn_logits_scaling = candidates[chosen].scale;
  commit_directory(args.out / "step-0", [&](const fs::path& directory) {
    context.save(directory, model.config, *model.store);
  });
  const auto at_longest = [&](const Candidate& c) {
    return needle_accuracy(items_of_length(c.needles, longest)).mean;
  };
  finish_stage(args,
               {fmt::format("needle accuracy at {} tokens", longest),
                at_longest(candidates[chosen]), Gate::Kind::kAtLeast},
               {{"chosen", candidates[chosen].name},
                {"accuracy_unscaled", at_longest(candidates.front())},
                {"tokens", 0}});
}

}  // namespace halo
