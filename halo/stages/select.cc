// Layer selection on models (hypenet.md 2.3): what is kept, assembled from aligned mixers, and the
// record of the choice.
#include "halo/stages/select.h"

#include <algorithm>
#include <functional>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/eval/tasks/catalogue.h"
#include "halo/stages/choose_layers.h"
#include "halo/stages/selection_rule.h"
#include "halo/stages/task_sweep.h"
#include "halo/stages/transfer.h"

namespace halo {
namespace {

json::array to_array(const auto& values) {
  json::array out;
  for (const auto& value : values) out.push_back(json::value(value));
  return out;
}

// The mixers that kept layers get where none were aligned: the teacher's weights as they are.
Model teacher_attention(TransferInit init, const StageContext& context) {
  const Model& teacher = context.teacher();
  Model model;
  model.config = student_config(
      teacher.config,
      std::vector<MixerType>(teacher.config.mixer_types.size(), MixerType::kAttention));
  model.store = std::make_shared<ParameterStore>(
      decoder_parameters(model.config), ParameterStore::Use::kFrozen, context.machine().compute,
      context.machine().device);
  TransferArgs args;
  args.seed = context.seed();
  args.init = init == TransferInit::kRandom ? TransferInit::kRandom : TransferInit::kIdentity;
  transfer(teacher, model.config, *model.store, args);
  model.weights = bind_decoder(model.config, *model.store);
  return model;
}

// Writes OUT/step-0: `aligned` with the mixers of `attention` in the kept layers.
void write_hybrid(const StageContext& context, const Model& aligned, const Model& attention,
                  const Layers& kept, const fs::path& out) {
  std::vector<MixerType> mixers(aligned.config.mixer_types.size(), MixerType::kLightning);
  for (int64_t layer : kept) mixers[layer] = MixerType::kAttention;
  const ModelConfig config =
      student_config(context.teacher().config, mixers, aligned.config.lightning_learned_decay);
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen,
                       context.machine().compute, context.machine().device);
  for (const ParameterSpec& spec : store.specs()) {
    bool in_kept = false;
    for (int64_t layer : kept) {
      in_kept |= spec.name.rfind(fmt::format("model.layers.{}.self_attn.", layer), 0) == 0;
    }
    store.value(spec.name).copy_((in_kept ? attention : aligned).store->value(spec.name));
  }
  commit_directory(out / "step-0",
                   [&](const fs::path& directory) { context.save(directory, config, store); });
}

}  // namespace

void check_recipe(const SelectRecipe& select, const std::string& file) {
  const std::vector<int64_t>& layers = select.layers;
  if (select.recall.empty() != select.commonsense.empty()) {
    throw_error("{}: select.recall and select.commonsense are given together or not at all", file);
  }
  if (!select.recall.empty() && select.rule != SelectionRule::kRecallRatio) {
    throw_error(
        "{}: select.recall and select.commonsense are tasks of select.rule = \"halo\", not of "
        "\"{}\"",
        file, word_of(kSelectionRules, select.rule));
  }
  if (select.keep > 0 && select.kv_bytes > 0) {
    throw_error("{}: select.keep and select.kv_bytes both say how many layers are kept; give one",
                file);
  }
  if (!select.recall.empty() && select.data.empty()) {
    throw_error("{}: select.data must name the folder of the files of select.recall's tasks", file);
  }
  expand_tasks(select.recall);
  expand_tasks(select.commonsense);
  if (layers.empty()) return;
  if (std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<>()) != layers.end()) {
    throw_error("{}: select.layers must be different layers, counted from 0, in ascending order",
                file);
  }
  if (select.keep > 0 && select.keep != static_cast<int64_t>(layers.size())) {
    throw_error("{}: select.keep = {}, but select.layers lists {}", file, select.keep,
                layers.size());
  }
}

HeldOutArgs select_text(const SelectRecipe& recipe, const StageInputs& inputs) {
  HeldOutArgs args;
  args.part = TextPart::kSearch;
  args.row_length = inputs.row_length();
  args.rows = TextRows::kStream;
  args.max_tokens = recipe.held_out_rows * args.row_length;
  return args;
}

int64_t needle_length(const SelectRecipe& recipe, const StageInputs& inputs) {
  return recipe.needle_length > 0 ? recipe.needle_length : inputs.row_length();
}

void run_select(const SelectRecipe& recipe, TransferInit init, const StageContext& context,
                const StageArgs& args) {
  at::NoGradGuard no_grad;
  const int64_t keep = num_layers_to_keep(recipe, context.teacher().config);
  const Model aligned = context.load_student(args.inputs[0], context.machine().device);
  const Model attention = args.inputs[1].empty()
                              ? teacher_attention(init, context)
                              : context.load_student(args.inputs[1], context.machine().device);
  const Candidates candidates(recipe, context, aligned.weights, attention.weights);
  const std::optional<CandidateScores> teacher = check_teacher(recipe, candidates, context);
  const LayerChoice choice = choose_layers(recipe, candidates, context, keep, args);
  const std::vector<CandidateScores> scores = candidates.score_sets({choice.layers, {}});
  if (!context.ranks().is_first()) return;
  const CandidateScores &chosen = scores[0], &nothing_kept = scores[1];
  write_hybrid(context, aligned, attention, choice.layers, args.out);

  const double ratio = kept_loss_share(chosen.figures(nullptr), nothing_kept.figures(nullptr));
  const json::object figures{
      {"rule", recipe.layers.empty() ? word_of(kSelectionRules, recipe.rule) : "given layers"},
      {"layers", to_array(choice.layers)},
      {"scores", to_array(choice.scores)},
      {"frequency", to_array(choice.frequency)},
      {"chosen", candidate_to_json(choice.layers, chosen)},
      {"nothing_kept", candidate_to_json({}, nothing_kept)},
      {"tokens", 0}};
  json::object selection = figures;
  if (teacher) selection["teacher"] = candidate_to_json({}, *teacher);
  selection["candidates"] = choice.candidates;
  if (choice.sweep) {
    selection["sweep"] = choice.sweep->to_json();
    write_file(args.out / kLayerSweep, choice.sweep->csv());
  }
  write_json(args.out / "selection.json", selection);
  finish_stage(
      args,
      {"loss of the chosen set as a share of that with nothing kept, on needles' digits or "
       "as KL, the smaller share",
       ratio, Gate::Kind::kAtMost},
      figures);
}

}  // namespace halo
