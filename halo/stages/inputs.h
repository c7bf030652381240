// What a recipe names, weights and machine apart: the teacher's configuration and tokenizer,
// training text, held-out text. Enough to refuse what a later stage could not do before anything is
// loaded.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halo/data/loader.h"
#include "halo/data/needle.h"
#include "halo/eval/held_out.h"
#include "halo/formats/model_config.h"
#include "halo/runtime/run_recipe.h"
#include "halo/tokenizer/tokenizer.h"
#include "halo/train/settings.h"

namespace halo {

namespace fs = std::filesystem;

struct ContextSettings {
  std::string teacher;  // Hugging Face directory
  RunRecipe run;
  DataRecipe data;
  std::string held_out;     // token shard
  int64_t row_length = 0;   // tokens of the rows that mixers are fitted and judged on
  int64_t longest_row = 0;  // that any stage trains on

  // The longest sequence that teacher or student ever trains on.
  int64_t training_length(const ModelConfig& teacher) const;
};

// What config.json of a student has beside the published keys, whose max_position_embeddings is
// the same in every HypeNet: training_length of the stages that made it; 0: nothing.
int64_t recorded_training_length(const ModelConfig& student);
ModelConfig with_training_length(ModelConfig student, int64_t length);

class StageInputs {
 public:
  // Reads the teacher's configuration and its tokenizer.
  explicit StageInputs(ContextSettings settings);
  StageInputs(const StageInputs&) = delete;  // needles_ refers to tokenizer_

  const DataRecipe& data() const { return settings_.data; }
  int64_t row_length() const { return settings_.row_length; }
  const fs::path& teacher_directory() const { return teacher_directory_; }
  const ModelConfig& teacher_config() const { return teacher_config_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const std::string& tokenizer_hash() const { return tokenizer_hash_; }
  const NeedleWriter& needles() const { return needles_; }
  uint64_t seed() const { return static_cast<uint64_t>(settings_.run.seed); }
  int64_t training_length() const { return settings_.training_length(teacher_config_); }

  // Held-out text; an Error where the recipe names none or another tokenizer made it.
  const TokenShard& held_out() const;
  bool has_held_out() const { return !settings_.held_out.empty(); }

  // Training batches of a stage, as a pure function of the step. Each stage draws from a seed of
  // its own, so that no stage re-reads another's order.
  Loader loader(const DataRecipe& data, const TrainRecipe& train, const std::string& stage) const;

 protected:
  const ContextSettings& settings() const { return settings_; }

 private:
  ContextSettings settings_;
  fs::path teacher_directory_;
  ModelConfig teacher_config_;
  fs::path tokenizer_path_;
  Tokenizer tokenizer_;
  std::string tokenizer_hash_;
  std::optional<int64_t> document_begin_;
  NeedleWriter needles_;
  mutable std::optional<TokenShard> held_out_;
};

}  // namespace halo
