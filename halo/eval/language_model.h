// A model as evaluation tasks ask it: what a continuation's log-likelihood is, and what the model
// writes. The one place through which tasks reach an engine.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "halo/engine/engine.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

struct ScoreRequest {
  std::string prompt, continuation;
};

struct Score {
  double loglikelihood = 0;  // ln p of the continuation's tokens, each after those before it
  bool greedy = true;        // greedy decoding would write the continuation
};

struct GenerateRequest {
  std::string prompt;
  std::vector<std::string> stops;  // the text ends before the first of them
  int64_t max_tokens = 0;
};

struct SpecialTokens {
  std::optional<int64_t> begin;  // of every text
  int64_t before_all = 0;        // what stands before a continuation that has no prompt
  std::vector<int64_t> ends;     // of what the model writes
};

class LanguageModel {
 public:
  // Tokens that a fork has to save before requests share what they have in common: forks of short
  // prompts cost a GPU more than the prompts.
  static int64_t default_min_shared(at::Device device) { return device.is_cuda() ? 512 : 4; }

  // Of a model directory; an Error where it has no tokenizer.json.
  LanguageModel(const Model& model, const std::filesystem::path& directory, Kernels kernels,
                KvType kv_type = KvType::kComputed);
  // For tests.
  LanguageModel(std::shared_ptr<const DecoderWeights> weights, Tokenizer tokenizer,
                SpecialTokens special, const EngineOptions& options, int64_t min_shared);
  // Another model that reads and writes as `like` does.
  LanguageModel(const LanguageModel& like, std::shared_ptr<const DecoderWeights> weights,
                const EngineOptions& options);

  // Requests may be many: they are run a batch at a time, without padding. Where requests beside
  // each other begin with the same tokens these are computed once.
  std::vector<Score> score(const std::vector<ScoreRequest>& requests);
  std::vector<std::string> generate_until(const std::vector<GenerateRequest>& requests);

  // With the token that begins every text, if the text does not have it.
  std::vector<int64_t> encode(const std::string& text) const;
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const EngineOptions& options() const { return engine_.options(); }
  // Tokens whose probabilities were computed so far.
  int64_t num_predictions() const { return engine_.num_predictions() + written_predictions_; }
  const std::filesystem::path& directory() const { return directory_; }  // empty: of none

 private:
  struct Pair {
    std::vector<int64_t> prompt, continuation;  // neither is empty
  };
  // Prompts first .. last-1 begin with the same `shared` tokens; 0: one pair alone.
  struct Run {
    size_t first, last;
    int64_t shared;
  };
  struct Prediction {
    size_t pair;
    int64_t row, target;
  };

  Pair encode_pair(const ScoreRequest& request) const;
  Run next_run(const std::vector<Pair>& pairs, size_t first) const;
  void score_batch(const std::vector<Pair>& pairs, std::span<const Run> runs,
                   std::vector<Score>& scores);

  std::shared_ptr<const DecoderWeights> weights_;
  Engine engine_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  SpecialTokens special_;
  int64_t min_shared_;
  int64_t written_predictions_ = 0;
  std::filesystem::path directory_;
};

}  // namespace halo
