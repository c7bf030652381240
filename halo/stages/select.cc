// Layer selection on models (hypenet.md 2.3): scores candidates, applies the rule, assembles the
// hybrid, and says how sure the choice is.
#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/base/random.h"
#include "halo/eval/needle.h"
#include "halo/stages/selection_rule.h"
#include "halo/stages/stages.h"
#include "halo/stages/transfer.h"

namespace halo {
namespace {

using Layers = std::vector<int64_t>;

// A candidate's scores item by item, so that they can be resampled.
struct CandidateScores {
  std::vector<NeedleItem> needles;
  TextScores text;
};

struct Resample {
  std::vector<double> haystack, row;  // how often each was drawn
};

double weighted_needle(const CandidateScores& c, const Resample* draw) {
  double sum = 0, count = 0;
  for (const NeedleItem& item : c.needles) {
    const double weight = draw ? draw->haystack[static_cast<size_t>(item.haystack)] : 1;
    sum += weight * item.logprob;
    count += weight;
  }
  return sum / count;
}

double weighted_text(const CandidateScores& c, const std::vector<double>& values,
                     const Resample* draw) {
  const std::vector<double> sums = row_sums(c.text, values),
                            tokens = row_sums(c.text, c.text.tokens);
  double sum = 0, count = 0;
  for (size_t r = 0; r < sums.size(); ++r) {
    const double weight = draw ? draw->row[r] : 1;
    sum += weight * sums[r];
    count += weight * tokens[r];
  }
  return sum / count;
}

// The material every candidate is scored on, and the models that candidates are made of.
class Candidates {
 public:
  Candidates(const StageContext& context, const DecoderWeights& aligned,
             const DecoderWeights& attention)
      : context_(context), aligned_(aligned), attention_(attention), text_(make_text(context)) {
    const SelectRecipe& r = context.recipe().select;
    NeedleArgs args;
    args.lengths = {r.needle_length > 0 ? r.needle_length : context.recipe().align.sequence_length};
    args.haystacks = r.needle_haystacks;
    args.depths = even_depths(r.needle_questions);
    args.pool = NeedlePool::kSearch;
    args.seed = Random(context.seed(), "select.needles").bits(0);
    tasks_ = make_needles(context.needles(), context.held_out(), args);
    teacher_ = teacher_states(context.teacher().weights, text_);
  }

  // All layers lightning but the kept ones, which are NoPE mixers.
  CandidateScores score_set(const Layers& kept) const {
    DecoderWeights model = aligned_;
    for (int64_t layer : kept) model.layers[layer].mixer = attention_.layers[layer].mixer;
    return score(model);
  }
  // The teacher with layer i alone swapped for its lightning mixer.
  CandidateScores score_swap(int64_t layer) const {
    DecoderWeights model = context_.teacher().weights;
    model.layers[layer].mixer = aligned_.layers[layer].mixer;
    return score(model);
  }

  Resample resample(uint64_t index) const {
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

 private:
  static TextBatches make_text(const StageContext& context) {
    HeldOutArgs args;
    args.part = TextPart::kSearch;
    args.row_length = context.recipe().align.sequence_length;
    args.rows = TextRows::kStream;
    args.max_tokens = context.recipe().select.held_out_rows * args.row_length;
    return {held_out_text(context.held_out(), args), args.row_length, context.machine().device,
            context.machine().form};
  }

  CandidateScores score(const DecoderWeights& model) const {
    leave_if_stopped("select");
    EngineOptions options;
    options.form = context_.machine().form;
    Engine engine(std::make_shared<DecoderWeights>(model), options);
    return {score_needles(engine, tasks_), score_text(model, text_, &teacher_)};
  }

  const StageContext& context_;
  const DecoderWeights &aligned_, &attention_;
  TextBatches text_;
  std::vector<NeedleTask> tasks_;
  TeacherStates teacher_;
};

SetFigures figures_of(const CandidateScores& c, double needle_error, const Resample* draw) {
  return {weighted_needle(c, draw), needle_error, weighted_text(c, c.text.kl, draw)};
}

struct Choice {
  Layers layers;
  std::vector<double> scores;     // one a layer; empty for rules without any
  std::vector<double> frequency;  // share of resamples in which each layer is kept
  json::array candidates;
};

json::object candidate_json(const Layers& layers, const CandidateScores& c) {
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

// Rule `joint`: sets right after alignment.
Choice choose_joint(const Candidates& candidates, int64_t num_layers, int64_t keep,
                    const SelectRecipe& recipe) {
  std::vector<Layers> sets;
  std::vector<CandidateScores> scores;
  Progress progress("select", static_cast<int64_t>(count_sets(num_layers, keep)));
  const auto score = [&](const Layers& set) {
    sets.push_back(set);
    scores.push_back(candidates.score_set(set));
    progress.update(static_cast<int64_t>(sets.size()),
                    fmt::format("layers {}", fmt::join(set, " ")));
    return figures_of(scores.back(), needle_logprob(scores.back().needles).standard_error, nullptr);
  };
  Choice choice;
  if (count_sets(num_layers, keep) <= double(recipe.max_sets)) {
    std::vector<SetFigures> figures;
    for (const Layers& set : all_sets(num_layers, keep)) figures.push_back(score(set));
    choice.layers = sets[choose_set(figures)];
  } else {
    choice.layers = search_sets(num_layers, keep, score);
  }
  progress.finish(fmt::format("keep layers {}", fmt::join(choice.layers, " ")));

  choice.frequency.assign(static_cast<size_t>(num_layers), 0);
  for (int64_t b = 0; b < recipe.bootstrap; ++b) {
    const Resample draw = candidates.resample(static_cast<uint64_t>(b));
    std::vector<SetFigures> figures;
    std::vector<size_t> index;
    for (size_t i = 0; i < sets.size(); ++i) {
      if (static_cast<int64_t>(sets[i].size()) != keep) continue;
      figures.push_back(
          figures_of(scores[i], needle_logprob(scores[i].needles).standard_error, &draw));
      index.push_back(i);
    }
    for (int64_t layer : sets[index[choose_set(figures)]]) {
      choice.frequency[layer] += 1;
    }
  }
  for (double& share : choice.frequency) share /= double(recipe.bootstrap);
  for (size_t i = 0; i < sets.size(); ++i) {
    choice.candidates.push_back(candidate_json(sets[i], scores[i]));
  }
  return choice;
}

// The score of each layer under a rule that swaps one layer at a time.
std::vector<double> sweep_scores(SelectionRule rule, const std::vector<CandidateScores>& swaps,
                                 const Resample* draw) {
  std::vector<double> recall, commonsense, kl;
  for (const CandidateScores& swap : swaps) {
    recall.push_back(weighted_needle(swap, draw));
    commonsense.push_back(-weighted_text(swap, swap.text.loss, draw));
    kl.push_back(weighted_text(swap, swap.text.kl, draw));
  }
  if (rule == SelectionRule::kKl) return kl;
  if (rule == SelectionRule::kHalo) return halo_scores(recall, commonsense);
  for (double& value : recall) value = -value;  // the layer whose loss hurts recall most
  return recall;
}

Choice choose_by_sweep(const Candidates& candidates, SelectionRule rule, int64_t num_layers,
                       int64_t keep, const SelectRecipe& recipe) {
  std::vector<CandidateScores> swaps;
  Progress progress("select", num_layers);
  Choice choice;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    swaps.push_back(candidates.score_swap(layer));
    json::object row = candidate_json({layer}, swaps.back());
    row["swapped"] = true;
    choice.candidates.push_back(row);
    progress.update(layer + 1, fmt::format("layer {} swapped", layer));
  }
  choice.scores = sweep_scores(rule, swaps, nullptr);
  choice.layers = top_layers(choice.scores, keep);
  progress.finish(fmt::format("keep layers {}", fmt::join(choice.layers, " ")));
  choice.frequency.assign(static_cast<size_t>(num_layers), 0);
  for (int64_t b = 0; b < recipe.bootstrap; ++b) {
    const Resample draw = candidates.resample(static_cast<uint64_t>(b));
    for (int64_t layer : top_layers(sweep_scores(rule, swaps, &draw), keep)) {
      choice.frequency[layer] += 1;
    }
  }
  for (double& share : choice.frequency) share /= double(recipe.bootstrap);
  return choice;
}

Choice choose(const Candidates& candidates, const StageContext& context, int64_t keep) {
  const SelectRecipe& recipe = context.recipe().select;
  const int64_t layers = context.teacher().config.num_layers;
  if (!recipe.layers.empty()) return {recipe.layers, {}, {}, {}};
  const SelectionRule rule = parse_selection_rule(recipe.rule);
  switch (rule) {
    case SelectionRule::kJoint:
      return choose_joint(candidates, layers, keep, recipe);
    case SelectionRule::kEven:
      return {even_layers(layers, keep), {}, {}, {}};
    case SelectionRule::kRandom:
      return {random_layers(layers, keep, context.seed()), {}, {}, {}};
    default:
      return choose_by_sweep(candidates, rule, layers, keep, recipe);
  }
}

json::array to_array(const auto& values) {
  json::array out;
  for (const auto& value : values) out.push_back(json::value(value));
  return out;
}

}  // namespace

void run_select(const StageContext& context, const fs::path& aligned_directory,
                const fs::path& attention_directory, const fs::path& out) {
  at::NoGradGuard no_grad;
  const Model& teacher = context.teacher();
  const SelectRecipe& recipe = context.recipe().select;
  const int64_t num_layers = teacher.config.num_layers;
  const int64_t keep = recipe.keep > 0 ? recipe.keep : default_keep(num_layers);
  if (keep > num_layers) {
    throw_error("select.keep = {}: the model has {} layers", keep, num_layers);
  }
  if (!recipe.layers.empty() && recipe.layers.back() >= num_layers) {
    throw_error("select.layers names layer {}: the model has layers 0 to {}", recipe.layers.back(),
                num_layers - 1);
  }
  const Model aligned = context.load(aligned_directory, ParameterStore::Use::kFrozen);
  // Kept layers: aligned NoPE mixers, or the teacher's weights as they are.
  Model attention;
  if (attention_directory.empty()) {
    attention.config = student_config(
        teacher.config,
        std::vector<MixerType>(static_cast<size_t>(num_layers), MixerType::kAttention));
    attention.store = std::make_shared<ParameterStore>(
        decoder_parameters(attention.config), ParameterStore::Use::kFrozen,
        context.machine().compute, context.machine().device);
    TransferArgs args;
    args.seed = context.seed();
    args.init = parse_transfer_init(context.recipe().transfer.init) == TransferInit::kPaper
                    ? TransferInit::kPaper
                    : TransferInit::kIdentity;
    transfer(teacher, attention.config, *attention.store, args);
    attention.weights = bind_decoder(attention.config, *attention.store);
  } else {
    attention = context.load(attention_directory, ParameterStore::Use::kFrozen);
  }

  const Candidates candidates(context, aligned.weights, attention.weights);
  const Choice choice = choose(candidates, context, keep);
  const CandidateScores chosen = candidates.score_set(choice.layers);
  const CandidateScores nothing_kept = candidates.score_set({});

  std::vector<MixerType> mixers(static_cast<size_t>(num_layers), MixerType::kLightning);
  for (int64_t layer : choice.layers) mixers[layer] = MixerType::kAttention;
  const ModelConfig config = student_config(teacher.config, mixers);
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen,
                       context.machine().compute, context.machine().device);
  for (const ParameterSpec& spec : store.specs()) {
    bool kept = false;
    for (int64_t layer : choice.layers) {
      kept |= spec.name.rfind(fmt::format("model.layers.{}.self_attn.", layer), 0) == 0;
    }
    store.value(spec.name).copy_((kept ? attention : aligned).store->value(spec.name));
  }
  commit_directory(out / "step-0",
                   [&](const fs::path& directory) { context.save(directory, config, store); });

  const double ratio = mean_kl(chosen.text).mean / mean_kl(nothing_kept.text).mean;
  const json::object figures{{"rule", recipe.layers.empty() ? recipe.rule : "given layers"},
                             {"layers", to_array(choice.layers)},
                             {"scores", to_array(choice.scores)},
                             {"frequency", to_array(choice.frequency)},
                             {"chosen", candidate_json(choice.layers, chosen)},
                             {"nothing_kept", candidate_json({}, nothing_kept)},
                             {"tokens", 0}};
  json::object selection = figures;
  selection["candidates"] = choice.candidates;
  write_json(out / "selection.json", selection);
  finish_stage(out, "select",
               {"KL of the chosen set as a share of the KL with nothing kept", ratio,
                context.recipe().gates.select_kl_ratio, Gate::Kind::kAtMost},
               figures);
}

}  // namespace halo
