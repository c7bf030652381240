#include "halo/stages/choose_layers.h"

#include <cmath>

#include "halo/base/progress.h"
#include "halo/stages/learned_gates.h"
#include "halo/stages/selection_rule.h"

namespace halo {
namespace {

// How often each layer is kept when haystacks and rows are drawn anew.
std::vector<double> keep_frequency(const Candidates& candidates, int64_t num_layers,
                                   int64_t resamples,
                                   const std::function<Layers(const Resample&)>& choose) {
  std::vector<double> frequency(static_cast<size_t>(num_layers), 0);
  Progress progress("select: resamples", resamples);
  for (int64_t b = 0; b < resamples; ++b) {
    for (int64_t layer : choose(candidates.resample(static_cast<uint64_t>(b)))) {
      frequency[layer] += 1;
    }
    progress.update(b + 1);
  }
  for (double& share : frequency) share /= double(resamples);
  return frequency;
}

// Rule `joint`: sets right after alignment.
LayerChoice choose_joint(const Candidates& candidates, int64_t num_layers, int64_t keep,
                         const SelectRecipe& recipe) {
  std::vector<Layers> sets;
  std::vector<CandidateScores> scores;
  const bool tries_all = count_sets(num_layers, keep) <= double(recipe.max_sets);
  Progress progress("select", tries_all ? static_cast<int64_t>(count_sets(num_layers, keep))
                                        : most_searched_sets(num_layers, keep));
  const auto score = [&](const std::vector<Layers>& asked) {
    const size_t before = sets.size();
    sets.insert(sets.end(), asked.begin(), asked.end());
    const auto on_set = [&](size_t set) {
      progress.update(static_cast<int64_t>(before + set + 1),
                      fmt::format("layers {}", fmt::join(asked[set], " ")));
    };
    std::vector<SetFigures> figures;
    for (CandidateScores& scored : candidates.score_sets(asked, on_set)) {
      figures.push_back(scored.figures(nullptr));
      scores.push_back(std::move(scored));
    }
    return figures;
  };
  LayerChoice choice;
  if (tries_all) {
    const std::vector<SetFigures> all = score(all_sets(num_layers, keep));
    choice.layers = sets[choose_set(all)];
  } else {
    choice.layers = search_sets(num_layers, keep, score);
  }
  progress.finish(fmt::format("keep layers {}", fmt::join(choice.layers, " ")));

  std::vector<size_t> whole;  // a greedy search scores smaller sets on its way
  for (size_t i = 0; i < sets.size(); ++i) {
    if (static_cast<int64_t>(sets[i].size()) == keep) whole.push_back(i);
    choice.candidates.push_back(candidate_to_json(sets[i], scores[i]));
  }
  choice.frequency =
      keep_frequency(candidates, num_layers, recipe.bootstrap, [&](const Resample& draw) {
        std::vector<SetFigures> drawn;
        for (size_t i : whole) drawn.push_back(scores[i].figures(&draw));
        return sets[whole[choose_set(drawn)]];
      });
  return choice;
}

// The score of each layer under a rule that swaps, or keeps, one layer at a time.
std::vector<double> sweep_scores(SelectionRule rule, const std::vector<CandidateScores>& layers,
                                 const Resample* draw) {
  std::vector<double> recall, commonsense, kl;
  for (const CandidateScores& layer : layers) {
    recall.push_back(layer.needle_logprob(draw));
    commonsense.push_back(-layer.loss(draw));
    kl.push_back(layer.kl(draw));
  }
  if (rule == SelectionRule::kKl) return kl;
  if (rule == SelectionRule::kProbe) return commonsense;
  if (rule == SelectionRule::kRecallRatio) return halo_scores(recall, commonsense);
  for (double& value : recall) value = -value;  // the layer whose loss hurts recall most
  return recall;
}

LayerChoice choose_by_sweep(const Candidates& candidates, SelectionRule rule, int64_t num_layers,
                            int64_t keep, const SelectRecipe& recipe) {
  Progress progress("select", num_layers);
  LayerChoice choice;
  const bool keeps = rule == SelectionRule::kProbe;  // the layer, alone of all; else swaps it alone
  const auto on_layer = [&](size_t layer) {
    progress.update(static_cast<int64_t>(layer) + 1,
                    fmt::format("layer {} {}", layer, keeps ? "kept" : "swapped"));
  };
  std::vector<Layers> alone;
  for (int64_t layer = 0; layer < num_layers; ++layer) alone.push_back({layer});
  const std::vector<CandidateScores> scores =
      keeps ? candidates.score_sets(alone, on_layer) : candidates.score_swaps(on_layer);
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    json::object row = candidate_to_json({layer}, scores[layer]);
    if (!keeps) row["swapped"] = true;
    choice.candidates.push_back(row);
  }
  choice.scores = sweep_scores(rule, scores, nullptr);
  choice.layers = top_layers(choice.scores, keep);
  progress.finish(fmt::format("keep layers {}", fmt::join(choice.layers, " ")));
  choice.frequency = keep_frequency(
      candidates, num_layers, recipe.bootstrap,
      [&](const Resample& draw) { return top_layers(sweep_scores(rule, scores, &draw), keep); });
  return choice;
}

// As published: by tasks.
LayerChoice choose_by_tasks(const Candidates& candidates, const StageContext& context, int64_t keep,
                            const SelectRecipe& recipe) {
  LayerChoice choice;
  choice.sweep = sweep_tasks(recipe, context, candidates.aligned());
  const TaskSweep& sweep = *choice.sweep;
  choice.scores = sweep.scores(context.seed(), -1);
  choice.layers = top_layers(choice.scores, keep);
  choice.frequency.resize(choice.scores.size());
  for (int64_t b = 0; b < recipe.bootstrap; ++b) {
    for (const int64_t layer : top_layers(sweep.scores(context.seed(), b), keep)) {
      choice.frequency[layer] += 1 / static_cast<double>(recipe.bootstrap);
    }
  }
  return choice;
}

}  // namespace

int64_t num_layers_to_keep(const SelectRecipe& recipe, const ModelConfig& teacher) {
  const int64_t num_layers = teacher.num_layers;
  if (!recipe.layers.empty()) {
    if (recipe.layers.back() >= num_layers) {
      throw_error("select.layers names layer {}: the model has layers 0 to {}",
                  recipe.layers.back(), num_layers - 1);
    }
    return static_cast<int64_t>(recipe.layers.size());
  }
  if (recipe.kv_bytes > 0) {
    const int64_t of_layer = teacher.kv_bytes_per_token() / num_layers;
    if (recipe.kv_bytes < of_layer) {
      throw_error("select.kv_bytes = {}: one layer's keys and values take {} bytes a token",
                  recipe.kv_bytes, of_layer);
    }
    return std::min(num_layers, recipe.kv_bytes / of_layer);
  }
  const int64_t keep = recipe.keep > 0 ? recipe.keep : default_keep(num_layers);
  if (keep > num_layers) {
    throw_error("select.keep = {}: the model has {} layers", keep, num_layers);
  }
  return keep;
}

std::optional<CandidateScores> check_teacher(const SelectRecipe& recipe,
                                             const Candidates& candidates,
                                             const StageContext& context) {
  const bool by_needles = recipe.rule == SelectionRule::kJoint ||
                          (recipe.rule == SelectionRule::kRecallRatio && recipe.recall.empty()) ||
                          recipe.rule == SelectionRule::kRecall ||
                          recipe.rule == SelectionRule::kGate;
  if (!recipe.layers.empty() || !by_needles) return std::nullopt;
  CandidateScores teacher = candidates.score_teacher();
  const Estimate needle = needle_logprob(teacher.needles), loss = mean_loss(teacher.text);
  const double digit = -std::log(10.0);
  const double token = std::log(static_cast<double>(context.teacher().config.vocab_size));
  const auto refuse = [&](const std::string& what, const std::string& more) {
    together(context.ranks(), [&] {
      throw_error(
          "select: the teacher {}, so select.rule = \"{}\" would choose by noise; {}give "
          "select.rule = \"kl\", the layers in select.layers, or a teacher that does better",
          what, word_of(kSelectionRules, recipe.rule), more);
    });
  };
  if (!above_chance(needle.mean, needle.standard_error, digit)) {
    refuse(fmt::format("finds no needles in {} tokens: ln p of a digit is {:.2f} +- {:.2f}, by "
                       "guessing {:.2f}",
                       needle_length(recipe, context), needle.mean, needle.standard_error, digit),
           "try a shorter select.needle_length, or ");
  }
  if (recipe.rule == SelectionRule::kRecallRatio &&
      !above_chance(-loss.mean, loss.standard_error, -token)) {
    refuse(fmt::format("predicts no text: its loss is {:.2f} +- {:.2f} nats a token, by guessing "
                       "{:.2f}",
                       loss.mean, loss.standard_error, token),
           "");
  }
  return teacher;
}

LayerChoice choose_layers(const SelectRecipe& recipe, const Candidates& candidates,
                          const StageContext& context, int64_t keep, const StageArgs& args) {
  const int64_t layers = context.teacher().config.num_layers;
  if (!recipe.layers.empty()) return {recipe.layers, {}, {}, {}};
  if (recipe.rule == SelectionRule::kRecallRatio && !recipe.recall.empty()) {
    return choose_by_tasks(candidates, context, keep, recipe);
  }
  switch (recipe.rule) {
    case SelectionRule::kGate: {
      const std::vector<double> gates = learn_gates(recipe, candidates, context, keep, args);
      return {top_layers(gates, keep), gates, {}, {}};
    }
    case SelectionRule::kJoint:
      return choose_joint(candidates, layers, keep, recipe);
    case SelectionRule::kEven:
      return {even_layers(layers, keep), {}, {}, {}};
    case SelectionRule::kRandom:
      return {random_layers(layers, keep, context.seed()), {}, {}, {}};
    default:
      return choose_by_sweep(candidates, recipe.rule, layers, keep, recipe);
  }
}

}  // namespace halo
