#include "halo/stages/inputs.h"

#include <algorithm>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/random.h"
#include "halo/data/pack.h"

namespace halo {
namespace {

constexpr const char* kTrainingLength = "training_length";

// The name itself, if the tokenizer has it or one of the usual ones.
const std::string& known_end(const Tokenizer& tokenizer, const std::string& name) {
  try {
    tokenizer.document_end(name);
  } catch (const Error& error) {
    throw_error("data.document_end: {}", error.what());
  }
  return name;
}

}  // namespace

int64_t ContextSettings::training_length(const ModelConfig& teacher) const {
  return std::max(teacher.max_position_embeddings, longest_row);
}

int64_t recorded_training_length(const ModelConfig& student) {
  const json::value* value = student.other.if_contains(kTrainingLength);
  if (!value) return 0;
  const int64_t* length = value->if_int64();
  if (!length || *length < 1) {
    throw_error("config.json: {} is {}, expected a number of tokens", kTrainingLength,
                json::serialize(*value));
  }
  return *length;
}

ModelConfig with_training_length(ModelConfig student, int64_t length) {
  student.other[kTrainingLength] = length;
  return student;
}

StageInputs::StageInputs(ContextSettings settings)
    : settings_(std::move(settings)),
      teacher_directory_(settings_.teacher),
      teacher_config_(read_model_config(teacher_directory_)),
      tokenizer_path_(teacher_directory_ / "tokenizer.json"),
      tokenizer_(tokenizer_path_),
      tokenizer_hash_(hash_file(tokenizer_path_)),
      document_begin_(document_begin(tokenizer_, tokenizer_path_)),
      needles_(tokenizer_, document_begin_, known_end(tokenizer_, settings_.data.document_end)) {
  if (tokenizer_.vocab_size() > teacher_config_.vocab_size) {
    throw_error("{}: tokenizer.json has {} tokens, config.json a vocabulary of {}",
                teacher_directory_.string(), tokenizer_.vocab_size(), teacher_config_.vocab_size);
  }
}

const TokenShard& StageInputs::held_out() const {
  if (!held_out_) {
    if (settings_.held_out.empty()) {
      throw_error("eval.held_out names no token shard; make one with `halo data pack`");
    }
    TokenShard shard(expand_shards(settings_.held_out).front());
    if (shard.header().tokenizer_hash != tokenizer_hash_) {
      throw_error("{}: made with tokenizer {}, the teacher's is {}; pack the text again",
                  shard.path().string(), shard.header().tokenizer_hash, tokenizer_hash_);
    }
    held_out_.emplace(std::move(shard));
  }
  return *held_out_;
}

Loader StageInputs::loader(const DataRecipe& data, const TrainRecipe& train,
                           const std::string& stage) const {
  return Loader(data, tokenizer_, tokenizer_hash_,
                {train.sequence_length, train.rows_per_step(), Random(seed(), stage).bits(0),
                 document_begin_});
}

}  // namespace halo
