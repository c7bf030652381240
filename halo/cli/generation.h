// A model as `generate` and `chat` run it, and its answers as text.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "halo/engine/scheduler.h"
#include "halo/engine/stop_text.h"
#include "halo/runtime/machine.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

struct GenerationModel {
  std::filesystem::path directory;
  Machine machine;
  int64_t vocabulary = 0;
  std::shared_ptr<const DecoderWeights> weights;
  std::optional<Tokenizer> tokenizer;  // none where the directory has none
  std::optional<int64_t> begin;        // the token that begins texts
  std::vector<int64_t> end_tokens;

  // The text as a whole document begins; an Error where it has no tokens, or one that the model
  // has no row for.
  std::vector<int64_t> encode(const std::string& text) const;
  // A conversation with the start of an answer. Where a chat begins is its template's business.
  std::vector<int64_t> encode_chat(const std::string& rendered) const;
};

GenerationModel load_generation_model(const std::filesystem::path& directory,
                                      const MachineRecipe& machine);

// The user's message, as the model's chat template puts it.
std::string render_message(const std::filesystem::path& directory, const std::string& text);

// The text of an answer, up to a stop string.
class AnswerText {
 public:
  AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops)
      : stream_(tokenizer), stop_(std::move(stops)) {}
  std::string push(int64_t token) {
    return stop_.push(stream_.push(token));
  }  // what became certain
  std::string finish() { return stop_.push(stream_.finish()) + stop_.finish(); }  // once, last
  bool stopped() const { return stop_.stopped(); }

 private:
  StreamDecoder stream_;
  StopText stop_;
};

// "stop" and so on, as `finish_reason` has it.
std::string finish_word(Finish::Reason reason);

}  // namespace halo
