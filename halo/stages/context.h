// What every stage shares: the machine, the teacher and its tokenizer, held-out text,
// and how a stage leaves its results. A stage reads model directories and writes one folder:
//   <stage>/step-N/      a Hugging Face directory; the newest is the stage's model
//   <stage>/result.json  written last: figures, the gate, tokens, seconds, hashes
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/data/needle.h"
#include "halo/eval/held_out.h"
#include "halo/model/decoder.h"
#include "halo/runtime/machine.h"
#include "halo/tokenizer/tokenizer.h"
#include "halo/train/loop.h"

namespace halo {

namespace fs = std::filesystem;

struct ContextSettings {
  std::string teacher;  // Hugging Face directory
  RunRecipe run;
  DataRecipe data;
  std::string held_out;     // token shard
  int64_t row_length = 0;   // tokens of the rows that mixers are fitted and judged on
  int64_t longest_row = 0;  // that any stage trains on
};

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

class StageContext {
 public:
  // Loads the teacher and its tokenizer.
  explicit StageContext(ContextSettings settings);
  StageContext(const StageContext&) = delete;  // needles_ refers to tokenizer_

  const DataRecipe& data() const { return settings_.data; }
  int64_t row_length() const { return settings_.row_length; }
  const Machine& machine() const { return machine_; }
  const Model& teacher() const { return teacher_; }
  const fs::path& teacher_directory() const { return teacher_directory_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const std::string& tokenizer_hash() const { return tokenizer_hash_; }
  const NeedleWriter& needles() const { return needles_; }
  uint64_t seed() const { return static_cast<uint64_t>(settings_.run.seed); }

  // The longest sequence that teacher or student ever trains on.
  int64_t training_length() const;
  // Held-out text; an Error where the recipe names none or another tokenizer made it.
  const TokenShard& held_out() const;
  // Text of it as batches for this machine. `bucket_length`: where the position buckets of the
  // scores double from (TextBatches); 0: args.row_length.
  TextBatches held_out_batches(const HeldOutArgs& args, int64_t bucket_length = 0) const;

  // Training batches of a stage, as a pure function of the step. Each stage draws from a seed of
  // its own, so that no stage re-reads another's order.
  Loader loader(const DataRecipe& data, const TrainRecipe& train, const std::string& stage) const;
  // The batches of the first `tokens` tokens of that stage's text, in rows of row_length() and
  // without needles.
  std::vector<Batch> calibration(const std::string& stage, int64_t tokens) const;

  // A TrainJob with everything that does not differ between stages. `loader` and `store` must
  // outlive it.
  TrainJob job(const StageArgs& args, const TrainRecipe& train, const Loader& loader,
               ParameterStore& store, const ModelConfig& config) const;

  Model load(const fs::path& directory, ParameterStore::Use use) const;
  // config.json, weights in the compute type, the teacher's side files.
  void save(const fs::path& directory, const ModelConfig& config,
            const ParameterStore& store) const;

 private:
  ContextSettings settings_;
  Machine machine_;
  fs::path teacher_directory_;
  Model teacher_;
  fs::path tokenizer_path_;
  Tokenizer tokenizer_;
  std::string tokenizer_hash_;
  std::optional<int64_t> document_begin_;
  NeedleWriter needles_;
  mutable std::optional<TokenShard> held_out_;
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
// Throws Stopped after SIGTERM or SIGINT. For stages that save nothing on their way.
void leave_if_stopped(const std::string& stage);

}  // namespace halo
