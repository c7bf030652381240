// The stages of HALO as a table: what convert, the commands of single stages, plan, the checks of a
// recipe and `bench train` know about a stage is its row. Another stage is a row and a function.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "halo/pipeline/cost.h"
#include "halo/pipeline/recipe.h"
#include "halo/stages/losses.h"

namespace halo {

// A model that a stage starts from.
struct StageInput {
  std::string option, help;       // of the command, where there is no run folder: "student"
  std::vector<std::string> from;  // stages: the first of them that the recipe wants
  bool optional = false;          // the stage does without it
};

// What a stage trains, its data apart.
struct StageTraining {
  std::function<const TrainRecipe&(const Recipe&)> recipe;
  std::string loss, unit;  // "KL from the teacher", "nats a token"
  bool uses_teacher = true;
  // Its rows are what the student writes: of text it reads the beginnings alone.
  bool writes = false;
  // All parameters of the student, or its mixers alone.
  bool whole_student = true;
  // What it trains of a hybrid: itself, or the same with one kind of mixer in every layer.
  std::function<ModelConfig(const ModelConfig& hybrid)> student;
  // `trained` has the parameters that it trains.
  // `group`: the ranks that share its rows (TrainRecipe::context_ranks), where it has that setting.
  std::function<ForwardBackward(const ModelConfig& student, const ParameterStore& trained,
                                const DecoderWeights& teacher, const Machine& machine,
                                const ContextGroup& group)>
      step;
  // `recompute`: with activation checkpointing.
  std::function<StageCost(const ModelConfig& teacher, const ModelConfig& student, int64_t length,
                          bool recompute)>
      cost;
};

struct Stage {
  std::string name;  // of its command and its folder: "align-attention"
  std::string help;
  std::vector<StageInput> inputs;
  std::function<bool(const Recipe&)> wanted;  // none: always
  std::optional<StageTraining> training;      // none: it trains nothing
  double GateRecipe::*gate = nullptr;         // the limit of its gate; none: 0
  // What of the recipe changes its result, beside its own section, the machine and the held-out
  // text: settings and sections ("data", "align.sequence_length").
  std::vector<std::string> reads;
  bool reads_training_length = false;  // StageInputs's
  // Refuses text that the stage could not do with; asked before the first stage begins (checks.h).
  std::function<void(const Recipe&, const StageInputs&)> check;
  std::function<void(const Recipe&, const StageContext&, const StageArgs&)> run;
  bool deals = false;  // what it measures among the ranks
};

// Whether all ranks run the stage: those that train or deal. Others are the first one's.
inline bool is_run_by_all(const Stage& stage) {
  return stage.training.has_value() || stage.deals;
}

// In the order they run; the last one's student is the result.
std::span<const Stage> pipeline_stages();

// Its section of the recipe: "align_attention".
std::string section_of(const Stage& stage);
bool is_wanted(const Stage& stage, const Recipe& recipe);
// Those of them that the recipe wants.
std::vector<const Stage*> wanted_stages(std::span<const Stage> stages, const Recipe& recipe);
// Whether this setting of the recipe may change the stage's result.
bool reads(const Stage& stage, const std::string& key);
// The key of its gate's limit, "gates.distill_kl"; empty: it has none.
std::string gate_key(const Stage& stage);
// An Error that names the nearest where there is no such stage.
const Stage& find_stage(std::span<const Stage> stages, const std::string& name);

// What the stage is run with, its inputs being those that a run folder has.
StageArgs args_in_run(std::span<const Stage> stages, const Stage& stage, const Recipe& recipe,
                      const fs::path& run);
// With inputs given by hand, in the order of the row.
StageArgs args_by_hand(const Stage& stage, const Recipe& recipe, std::vector<fs::path> inputs,
                       const fs::path& out);

}  // namespace halo
