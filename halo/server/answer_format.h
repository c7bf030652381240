// How an API says what came: as one object, or as events of a stream.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "halo/server/generation.h"

namespace halo {

// A server-sent event: "data: {...}\n\n", before it a line with its name where it has one.
std::string sse(const json::value& data, std::string_view name = "");

class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  virtual json::value whole(const std::vector<AnswerParts>& choices, const Usage& usage) = 0;

  // The events of a stream, "" where there is none: begin() first, then for each choice piece()s
  // and one end(), at last done(). `tokens` are scored where the request asks for it, and belong to
  // the text up to this piece. failed() may come at any moment, and is the last.
  virtual std::string begin(const Usage& usage) = 0;       // of which only the prompt is known
  virtual std::string progress(int64_t done, int64_t of);  // of a prompt's tokens
  virtual std::string prompt(size_t choice,
                             const AnswerParts& scores);  // only where it is asked for
  virtual std::string piece(size_t choice, const Piece& piece,
                            std::span<const ScoredToken> tokens) = 0;
  // Of `answer` what it ended by.
  virtual std::string end(size_t choice, const AnswerParts& answer,
                          std::span<const ScoredToken> tokens) = 0;
  virtual std::string done(const Usage& usage) = 0;
  virtual std::string failed(const ApiError& error);
};

// What /v1/completions and /v1/chat/completions share.
json::object usage_json(const Usage& usage);
json::object timings_json(const Usage& usage);
const char* finish_word(FinishReason finish);
json::object progress_json(int64_t done, int64_t of);
// The last events of a stream: where usage is asked for, `chunk` with it and no choices.
std::string stream_end(const Generation& generation, json::object chunk, const Usage& usage);

}  // namespace halo
