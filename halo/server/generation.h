// What a request asks of the model, whichever API it came through, and what comes back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "halo/kernels/sample/sample.h"
#include "halo/server/fields.h"

namespace halo {

// The most that a request may ask for.
inline constexpr int64_t kMaxChoices = 16, kMaxLogprobs = 20, kMaxStops = 16, kMaxStopBytes = 256,
                         kMaxBias = 1024, kMaxPrompts = 256;
inline constexpr int64_t kMaxTokens = int64_t{1} << 31;

// The answer must be JSON by it.
struct AnswerSchema {
  json::value schema;  // a checked one
  std::string field;   // of the request, which asks for it
};

// Fields that the APIs share.
struct Generation {
  SampleArgs sample;
  std::optional<int64_t> max_tokens;  // none: to the context's end
  std::optional<int64_t> seed;
  int64_t n = 1;
  std::vector<std::string> stop;
  bool ignore_eos = false, skip_special_tokens = true;
  bool stream = false, include_usage = false, return_progress = false;
  std::optional<AnswerSchema> schema;
  int64_t top_logprobs = -1;  // >= 0: of each token's alternatives
  int64_t prompt_logprobs = -1;
  std::string model, cache_salt;
  std::vector<std::string> ignored;  // fields that mean nothing here
};

// Everything but max_tokens, which the APIs name differently, and log-probabilities.
Generation read_generation(const Fields& fields);

// A text or a list of texts before which an answer ends.
std::vector<std::string> read_stops(const Fields& fields, std::string_view key);

// A token with its log-probability, and the likeliest ones in its place.
struct TokenScore {
  int64_t id = 0;
  std::string bytes;
  double logprob = 0;
};
struct ScoredToken : TokenScore {
  std::vector<TokenScore> top;  // falling
  int64_t text_offset = 0;      // characters of the choice's text before it
};

struct ToolCall {
  std::string id, name;
  std::string arguments;  // JSON text
};

// What an answer consists of, in order.
struct Piece {
  enum class Kind { kText, kReasoning, kToolCall };
  Kind kind = Kind::kText;
  std::string text;
  ToolCall call;
  // But for the call's id, which is made up.
  bool operator==(const Piece& other) const {
    return kind == other.kind && text == other.text && call.name == other.call.name &&
           call.arguments == other.call.arguments;
  }
};

enum class FinishReason { kStop, kStopString, kLength, kToolCalls };

struct AnswerParts {
  std::vector<Piece> pieces;  // neighbours are of different kinds, or calls
  std::vector<ScoredToken> tokens;
  FinishReason finish = FinishReason::kStop;
  std::string stop;  // the string, of kStopString
  // Of the prompt, where the request asks for it.
  std::string prompt_text;
  std::vector<ScoredToken> prompt_tokens;

  std::string text(Piece::Kind kind) const;
  std::vector<ToolCall> calls() const;
};

struct Usage {
  int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
  std::string cache_miss_reason;
  double prefill_seconds = 0, decode_seconds = 0;
};

// A name that no other has: "chatcmpl-" and 24 letters and digits.
std::string make_id(std::string_view prefix, int letters = 24);
// Requests with the same one share what was computed.
uint64_t salt_of(const std::string& cache_salt);
int64_t fresh_seed();  // for requests that give none
int64_t unix_seconds();

}  // namespace halo
