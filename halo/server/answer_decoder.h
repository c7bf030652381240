// From the tokens of an answer to its pieces: characters whole, before the first stop string, with
// thoughts and calls told apart.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "halo/engine/stop_text.h"
#include "halo/server/generation.h"
#include "halo/server/tool_calls.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

class AnswerDecoder {
 public:
  // `before`: tokens that the answer's text follows on directly, such as a text's to be continued.
  AnswerDecoder(const Tokenizer& tokenizer, const AnswerForm& form, const Generation& generation,
                std::span<const int64_t> before);

  // What became certain.
  std::vector<Piece> push(int64_t id);
  std::vector<Piece> finish();
  bool stopped() const { return stop_.stopped(); }  // at a stop string
  const std::string& stopped_by() const { return stop_.stopped_by(); }
  bool has_calls() const { return parser_.has_calls(); }
  // Characters of the text: of what the tokens so far stand for, and before the stop string.
  int64_t decoded() const { return decoded_; }
  int64_t certain() const { return certain_; }

 private:
  std::vector<Piece> take(const std::string& text);

  const Tokenizer& tokenizer_;
  const bool skip_special_;
  std::vector<int64_t> shown_;  // special tokens that stay in the text
  StreamDecoder decoder_;
  StopText stop_;
  AnswerParser parser_;
  int64_t decoded_ = 0, certain_ = 0;
};

int64_t count_characters(std::string_view text);

}  // namespace halo
