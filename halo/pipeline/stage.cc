// The table of the stages, and what follows from a row.
#include "halo/pipeline/stage.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/nearest.h"
#include "halo/stages/learned_gates.h"
#include "halo/stages/scale_rule.h"
#include "halo/stages/task_sweep.h"

namespace halo {
namespace {

constexpr const char* kMixerLoss = "MSE to the teacher's mixers, mean over layers";

StageTraining mixer_training(MixerType type,
                             std::function<const TrainRecipe&(const Recipe&)> recipe) {
  StageTraining out;
  out.recipe = std::move(recipe);
  out.loss = kMixerLoss;
  out.unit = "MSE";
  out.whole_student = false;
  out.student = [type](const ModelConfig& hybrid) { return with_mixers(hybrid, type); };
  out.step = [](const ModelConfig& student, const ParameterStore& trained,
                const DecoderWeights& teacher, const Machine& machine, const ContextGroup&) {
    return align_step(bind_mixers(student, trained), trained, teacher, machine);
  };
  out.cost = [](const ModelConfig& teacher, const ModelConfig& student, int64_t length, bool) {
    return align_cost(teacher, student, length);
  };
  return out;
}

ModelConfig itself(const ModelConfig& hybrid) {
  return hybrid;
}

StageTraining distill_training() {
  StageTraining out;
  out.recipe = [](const Recipe& r) -> const TrainRecipe& { return r.distill; };
  out.loss = "KL from the teacher";
  out.unit = "nats a token";
  out.student = itself;
  out.step = [](const ModelConfig& student, const ParameterStore& trained,
                const DecoderWeights& teacher, const Machine& machine, const ContextGroup&) {
    return kl_step(bind_decoder(student, trained), teacher, machine);
  };
  out.cost = distill_cost;
  return out;
}

StageTraining finetune_training() {
  StageTraining out;
  out.recipe = [](const Recipe& r) -> const TrainRecipe& { return r.finetune; };
  out.loss = "cross-entropy of the next token";
  out.unit = "nats a token";
  out.uses_teacher = false;
  out.student = itself;
  out.step = [](const ModelConfig& student, const ParameterStore& trained, const DecoderWeights&,
                const Machine& machine, const ContextGroup& group) {
    return cross_entropy_step(bind_decoder(student, trained), machine, group);
  };
  out.cost = [](const ModelConfig&, const ModelConfig& student, int64_t length, bool recompute) {
    return finetune_cost(student, length, recompute);
  };
  return out;
}

StageTraining on_policy_training() {
  StageTraining out;
  out.recipe = [](const Recipe& r) -> const TrainRecipe& { return r.on_policy; };
  out.loss = "divergence from the teacher on what the student writes";
  out.unit = "nats a token";
  out.writes = true;
  out.student = itself;
  out.step = [](const ModelConfig& student, const ParameterStore& trained,
                const DecoderWeights& teacher, const Machine& machine, const ContextGroup&) {
    return on_policy_step(bind_decoder(student, trained), teacher, machine,
                          OnPolicyRecipe().divergence);
  };
  out.cost = on_policy_cost;
  return out;
}

// An Error that names the key if the text that layers and scales are chosen on has no such rows.
void check_search_text(const std::string& key, const StageInputs& inputs, int64_t row_length) {
  HeldOutArgs args;
  args.part = TextPart::kSearch;
  args.row_length = row_length;
  check_held_out_text(key, inputs.held_out(), args);
}

StageInput student_of(std::vector<std::string> stages) {
  return {"student", "model directory to start from", std::move(stages)};
}

// What the batches of any training stage are cut from, and `more`.
std::vector<std::string> training_text(std::vector<std::string> more = {}) {
  for (const char* key : {"shards", "weights", "needle_share", "haystack", "packing"}) {
    more.push_back(std::string("data.") + key);
  }
  return more;
}

std::vector<Stage> make_stages() {
  return {
      {.name = "transfer",
       .help = "Stage 0: a student from the teacher's weights",
       .reads = {"data.shards", "data.weights", "data.packing", "align.sequence_length"},
       .run = [](const Recipe& r, const StageContext& context,
                 const StageArgs& args) { run_transfer(r.transfer, context, args); }},
      {.name = "align",
       .help = "Stage 1: lightning mixers learn the teacher's outputs",
       .inputs = {student_of({"transfer"})},
       .training = mixer_training(MixerType::kLightning,
                                  [](const Recipe& r) -> const TrainRecipe& { return r.align; }),
       .gate = &GateRecipe::align_explained_variance,
       .reads = training_text(),
       .check =
           [](const Recipe& r, const StageInputs& inputs) {
             inputs.loader(inputs.data(), r.align, "align");
             check_search_text("align.sequence_length", inputs, r.align.sequence_length);
           },
       .run = [](const Recipe& r, const StageContext& context,
                 const StageArgs& args) { run_align(r.align, context, args); }},
      {.name = "align-attention",
       .help = "Stage 1b: the same for attention without positions",
       .wanted = [](const Recipe& r) { return r.align_attention.tokens > 0; },
       .training =
           mixer_training(MixerType::kAttention,
                          [](const Recipe& r) -> const TrainRecipe& { return r.align_attention; }),
       .gate = &GateRecipe::align_explained_variance,
       .reads = training_text({"transfer", "align.sequence_length"}),
       .run =
           [](const Recipe& r, const StageContext& context, const StageArgs& args) {
             run_align_attention(r.align_attention, r.transfer, context, args);
           }},
      {.name = "select",
       .help = "Choose the layers that keep attention",
       .inputs = {student_of({"align"}),
                  {"attention", "align-attention's model, if any", {"align-attention"}, true}},
       .gate = &GateRecipe::select_ratio,
       .reads = training_text({"transfer.init", "align.sequence_length"}),
       .check =
           [](const Recipe& r, const StageInputs& inputs) {
             check_held_out_text("align.sequence_length", inputs.held_out(),
                                 select_text(r.select, inputs));
             select_task_files(r.select);
             if (r.select.rule == SelectionRule::kGate) {
               inputs.loader(gate_data(inputs), gate_training(r.select, inputs), "select");
             }
           },
       .run = [](const Recipe& r, const StageContext& context,
                 const StageArgs& args) { run_select(r.select, r.transfer.init, context, args); },
       .deals = true},
      {.name = "distill",
       .help = "Stage 2: KL from the teacher",
       .inputs = {student_of({"select"})},
       .training = distill_training(),
       .gate = &GateRecipe::distill_kl,
       .reads = training_text({"data.answer_weight", "data.answers_alone"}),
       .check =
           [](const Recipe& r, const StageInputs& inputs) {
             check_search_text("distill.sequence_length", inputs, r.distill.sequence_length);
           },
       .run = [](const Recipe& r, const StageContext& context,
                 const StageArgs& args) { run_distill(r.distill, context, args); }},
      {.name = "finetune",
       .help = "Stage 3: cross-entropy on long sequences",
       .inputs = {student_of({"distill"})},
       .wanted = [](const Recipe& r) { return r.finetune.tokens > 0; },
       .training = finetune_training(),
       .gate = &GateRecipe::finetune_loss_decrease,
       .reads = {"data"},
       .check =
           [](const Recipe& r, const StageInputs& inputs) {
             finetune_view(r.finetune, inputs);
             check_search_text("finetune.sequence_length", inputs, r.finetune.sequence_length);
           },
       .run = [](const Recipe& r, const StageContext& context,
                 const StageArgs& args) { run_finetune(r.finetune, context, args); }},
      {.name = "on-policy",
       .help = "Stage 4: what the student writes, by the teacher's distribution",
       .inputs = {student_of({"finetune", "distill"})},
       .wanted = [](const Recipe& r) { return r.on_policy.tokens > 0; },
       .training = on_policy_training(),
       .gate = &GateRecipe::on_policy_kl_decrease,
       .reads = {"data.shards", "data.weights"},
       .check =
           [](const Recipe& r, const StageInputs& inputs) {
             training_prompts(r.on_policy, inputs);
             held_out_prompts(r.on_policy, inputs);
             check_search_text("on_policy.sequence_length", inputs, r.on_policy.sequence_length);
           },
       .run = [](const Recipe& r, const StageContext& context,
                 const StageArgs& args) { run_on_policy(r.on_policy, context, args); }},
      {.name = "scale",
       .help = "Find the logit scale",
       .inputs = {student_of({"on-policy", "finetune", "distill"})},
       .gate = &GateRecipe::scale_needle,
       .reads_training_length = true,
       .check =
           [](const Recipe& r, const StageInputs& inputs) {
             const int64_t trained = training_length(r.scale, inputs);
             check_held_out_text(
                 "scale.lengths", inputs.held_out(),
                 scale_text(r.scale, lengths_beyond(r.scale.lengths, trained), trained));
           },
       .run = [](const Recipe& r, const StageContext& context,
                 const StageArgs& args) { run_scale(r.scale, context, args); },
       .deals = true}};
}

}  // namespace

std::span<const Stage> pipeline_stages() {
  static const std::vector<Stage> stages = make_stages();
  return stages;
}

std::string section_of(const Stage& stage) {
  std::string section = stage.name;
  std::ranges::replace(section, '-', '_');
  return section;
}

bool is_wanted(const Stage& stage, const Recipe& recipe) {
  return !stage.wanted || stage.wanted(recipe);
}

std::vector<const Stage*> wanted_stages(std::span<const Stage> stages, const Recipe& recipe) {
  std::vector<const Stage*> out;
  for (const Stage& stage : stages) {
    if (is_wanted(stage, recipe)) out.push_back(&stage);
  }
  return out;
}

bool reads(const Stage& stage, const std::string& key) {
  std::vector<std::string> names = {section_of(stage), "run", "eval.held_out",
                                    "data.document_end"};  // of the needles
  names.insert(names.end(), stage.reads.begin(), stage.reads.end());
  return std::ranges::any_of(
      names, [&](const std::string& name) { return key == name || key.starts_with(name + "."); });
}

std::string gate_key(const Stage& stage) {
  Recipe recipe;
  const Settings all = settings_of(recipe);
  for (const Setting& setting : all.all()) {
    const auto* value = std::get_if<double*>(&setting.value);
    if (value && stage.gate && *value == &(recipe.gates.*stage.gate)) return setting.key;
  }
  return "";
}

const Stage& find_stage(std::span<const Stage> stages, const std::string& name) {
  std::vector<std::string> names;
  for (const Stage& stage : stages) {
    if (stage.name == name) return stage;
    names.push_back(stage.name);
  }
  throw_error("there is no stage '{}'; did you mean '{}'?", name, nearest(name, names));
}

StageArgs args_by_hand(const Stage& stage, const Recipe& recipe, std::vector<fs::path> inputs,
                       const fs::path& out) {
  StageArgs args;
  args.name = stage.name;
  if (stage.training) {
    args.loss = stage.training->loss;
    args.unit = stage.training->unit;
  }
  if (stage.gate) args.gate = recipe.gates.*stage.gate;
  args.gate_key = gate_key(stage);
  args.inputs = std::move(inputs);
  args.out = out;
  return args;
}

StageArgs args_in_run(std::span<const Stage> stages, const Stage& stage, const Recipe& recipe,
                      const fs::path& run) {
  std::vector<fs::path> inputs;
  for (const StageInput& input : stage.inputs) {
    const auto from = std::ranges::find_if(input.from, [&](const std::string& name) {
      return is_wanted(find_stage(stages, name), recipe);
    });
    HALO_CHECK(from != input.from.end() || input.optional,
               "stage {}: no stage that the recipe wants gives its {}", stage.name, input.option);
    inputs.push_back(from == input.from.end() ? fs::path() : stage_model(run / *from));
  }
  return args_by_hand(stage, recipe, std::move(inputs), run / stage.name);
}

}  // namespace halo
