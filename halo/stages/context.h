// What every stage shares: the machine, the teacher and its tokenizer, held-out text,
// and how a stage leaves its results. A stage reads model directories and writes one folder:
//   <stage>/step-N/      a Hugging Face directory; the newest is the stage's model
//   <stage>/result.json  written last: figures, the gate, tokens, seconds, hashes
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/model/decoder.h"
#include "halo/runtime/communicator.h"
#include "halo/runtime/machine.h"
#include "halo/stages/inputs.h"
#include "halo/train/loop.h"

namespace halo {

// What a stage is run with beside its section of the recipe.
struct StageArgs {
  std::string name;        // of its folder, its random numbers and its progress
  std::string loss, unit;  // what its loss is, where it trains: "KL from the teacher"
  double gate = 0;         // limit of its gate's figure
  std::string gate_key;    // of the recipe, "gates.distill_kl"; empty: the limit is fixed
  std::string again;       // the command line that goes on from a failed gate; empty: none does
  // Model directories, in the order of its row of the table; an optional one may be empty.
  std::vector<fs::path> inputs;
  fs::path out;
};

class StageContext : public StageInputs {
 public:
  // Loads the teacher, if ranks do not have it between them, and its tokenizer. `ranks` must
  // outlive this.
  explicit StageContext(ContextSettings settings, Communicator& ranks = one_rank());

  const Machine& machine() const { return machine_; }
  // Those that train together: each of them runs a training stage. What else there is to do, the
  // first does alone while the others wait.
  Communicator& ranks() const { return ranks_; }
  Sharing sharing() const { return {&ranks_, settings().run.shard}; }
  // Whether this rank takes part in what a training stage does with its models beside training:
  // where each has a part of them alone, all do the same, and else the first.
  bool takes_part() const;
  // The teacher, on this rank alone, and as training stages run it, on all ranks. Where the two are
  // not one (run.shard = "full"), it is loaded when it is asked for, and the other forgotten.
  const Model& teacher() const;
  const Model& training_teacher() const;

  // Held-out text as batches for this machine. `bucket_length`: where the position buckets of the
  // scores double from (TextBatches); 0: args.row_length.
  TextBatches held_out_batches(const HeldOutArgs& args, int64_t bucket_length = 0) const;

  // The batches of the first `tokens` tokens of that stage's text, in rows of row_length() and
  // without needles.
  std::vector<Batch> calibration(const std::string& stage, int64_t tokens) const;

  // A TrainJob with everything that does not differ between stages. `loader` and `store` must
  // outlive it.
  TrainJob job(const StageArgs& args, const TrainRecipe& train, const Loader& loader,
               ParameterStore& store, const ModelConfig& config) const;
  // The same with other batches.
  TrainJob job(const StageArgs& args, const TrainRecipe& train, decltype(TrainJob::data) batches,
               ParameterStore& store, const ModelConfig& config) const;

  Model load(const fs::path& directory) const;
  // The same of a hybrid; an Error if it is none, or not of this teacher's sizes.
  Model load_student(const fs::path& directory, at::Device device) const;
  // To be trained, by all ranks.
  Model load_trained(const fs::path& directory) const;
  // config.json, weights in the compute type, the teacher's side files. Called by all ranks that
  // have the store between them, the first of which writes.
  void save(const fs::path& directory, const ModelConfig& config,
            const ParameterStore& store) const;

 private:
  bool divides_weights() const { return ranks_.size() > 1 && sharing().shard == Shard::kFull; }
  const Model& teacher_with(const Sharing& sharing) const;
  void check_student(const fs::path& directory) const;
  DType file_type() const { return machine_.compute == at::kFloat ? DType::kF32 : DType::kBF16; }

  Communicator& ranks_;
  Machine machine_;
  mutable std::optional<Model> teacher_;
  mutable bool teacher_is_divided_ = false;
};

// The middles of n equal parts of a haystack.
std::vector<double> even_depths(int64_t n);

// The model a finished stage left: its newest step-N folder. An Error where the stage is not
// finished or the folder damaged, that says which command makes it.
fs::path stage_model(const fs::path& stage_directory);

// What a stage must reach: value <= limit (kAtMost), value >= limit (kAtLeast), value > limit.
struct Gate {
  enum class Kind { kAtMost, kAtLeast, kAbove };
  std::string figure;
  double value = 0;
  Kind kind = Kind::kAtMost;
  bool passed(double limit) const;
};

// Writes result.json; throws GateFailed (after writing) where the gate is not passed, with a
// command that goes on all the same.
void finish_stage(const StageArgs& args, const Gate& gate, json::object figures);
bool stage_finished(const fs::path& out);
// Removes what a finished stage left, so that it begins anew.
void restart_stage(const fs::path& out);

}  // namespace halo
