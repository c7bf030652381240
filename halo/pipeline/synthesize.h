// Training text sampled from the teacher itself, so that no corpus is needed.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halo/base/json.h"
#include "halo/chat/chat_template.h"
#include "halo/engine/generate.h"
#include "halo/kernels/sample/sample.h"
#include "halo/runtime/run_recipe.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

struct SynthesizeArgs {
  std::string teacher;         // Hugging Face directory
  std::filesystem::path out;   // folder of shards
  int64_t tokens = 1'000'000;  // sampled in all, about
  int64_t length = 1024;       // longest document
  SampleArgs sample{.temperature = 1};
  int64_t batch = 64;  // documents at a time
  int64_t seed = 1;
  bool chat = false;
  std::string answers_by;
  MachineRecipe machine;
  std::string command;  // for the shard's provenance

  void settings(Settings& s) {
    s("tokens", tokens, {.help = "tokens in all", .min = 1, .max = 1e15});
    s("length", length, {.help = "longest document, tokens", .min = 3, .max = 16'777'216});
    s("sample", sample, {});
    s("batch", batch, {.help = "documents at a time", .min = 1, .max = 1e6});
    s("seed", seed, {.help = "of the sampling", .max = kMaxCount});
    s("chat", chat,
      {.help = "conversations of one turn through the model's chat template, both sides its own"});
    s("answers_by", answers_by,
      {.help = "with --chat another model, of the same tokenizer, that answers what the first made "
               "up: a student, to be distilled on what it writes itself"});
    s("machine", machine, {});
  }
};

// Each document begins with the begin token, where the tokenizer has one, and a token that starts
// with a capital letter, drawn uniformly. It ends with the end token, where the teacher says so or
// would begin another document, or where it reaches `length`. Documents in which the teacher wrote
// a needle of its own (NeedleWriter::mentions_needle) or a token that the tokenizer lacks are
// dropped. Returns counts.
//
// With `chat` a document is a conversation: what the teacher writes behind the template's beginning
// of a user's turn, up to that turn's end, and the answer to that, its own or that of `answers_by`,
// with its end token, then the end token of documents; all before the answer is marked
// NeedleMark::kAsked in the shard. Those in which either of them has no end, is empty or is too
// long are dropped too.
json::object synthesize(const SynthesizeArgs& args);

// What a chat template puts around a user's message (synthesize_chat.cc).
class ChatForm {
 public:
  // An Error where the template is missing, or ends a user's turn with no special token.
  ChatForm(const std::filesystem::path& teacher, const Tokenizer& tokenizer);

  const std::vector<int64_t>& before() const { return before_; }  // the message's first token
  int64_t end_of_message() const { return end_of_message_; }
  // A conversation up to where the answer begins.
  std::vector<int64_t> with_message(const std::string& message) const;

 private:
  ModelChat chat_;
  const Tokenizer& tokenizer_;
  std::vector<int64_t> before_;
  int64_t end_of_message_ = 0;
};

struct SampledDocument {
  std::vector<int64_t> tokens;
  int64_t asked = 0;  // so many of them, the first ones, are what an answer is given to
};
// `count` conversations of less than `length` tokens, made up by the model of `asks` and answered
// by that of `answers`; none where one is dropped. `ends`: tokens that end an answer. `like`: how
// tokens are drawn, from its stream on, and how long answers are.
std::vector<std::optional<SampledDocument>> make_conversations(
    Scheduler& asks, Scheduler& answers, const ChatForm& form, const Tokenizer& tokenizer,
    const std::vector<int64_t>& ends, int64_t count, const Request& like, int64_t length);

}  // namespace halo
