// The decoder of a tokenizer.json: steps that turn the texts of tokens into one text, each working
// on the tokens that the one before gives. They run as a stream: what is given out after the last
// token is the same however far apart the tokens come.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace halo {

struct ByteFallbackStep {};  // <0xE2> is a byte; bytes in a row are UTF-8, or U+FFFD each
struct FuseStep {};          // all tokens are one
struct StripStep {           // up to so many of a character at both ends of a token
  std::string character;
  uint64_t start, stop;
};
struct ReplaceStep {
  std::string what, with;
};
struct MetaspaceStep {
  std::string replacement;
  bool drop_in_first;  // in the first token it becomes nothing, elsewhere a space
};

struct DecoderSteps {
  // Tokens are in the byte alphabet: their bytes together are one text.
  bool byte_level = false;
  std::vector<std::variant<ByteFallbackStep, FuseStep, StripStep, ReplaceStep, MetaspaceStep>>
      steps;
};

// The byte of a token <0x00> .. <0xFF>, or -1.
int byte_of_token(std::string_view token);

// Text, or a byte, that a token stands for behind others; tokens of decoders that are byte_level
// have their bytes.
std::string text_within(const DecoderSteps& steps, std::string_view token);

class DecodeStream {
 public:
  // `steps` must live as long.
  explicit DecodeStream(const DecoderSteps& steps);

  // Appends to `out` what became certain. `token`: its bytes if steps.byte_level, else its text.
  void push(std::string_view token, std::string& out);
  // To be called once, last.
  void finish(std::string& out);

 private:
  // A step's memory. Tokens come in parts, so that fused ones need not be held.
  struct State {
    std::string held;       // of the token
    std::string bytes;      // ByteFallback: of tokens that are bytes
    uint64_t stripped = 0;  // Strip: taken from the token's start
    uint64_t at_end = 0;    // Strip: characters that are at the end so far
    bool in_start = true;   // Strip: nothing else was seen in the token
    bool in_first = true;   // Metaspace: no token has ended
  };

  void part(size_t step, std::string_view text, std::string& out);
  void end_token(size_t step, std::string& out);
  void finish_step(size_t step, std::string& out);
  void end_bytes(size_t step, std::string& out);
  void strip(size_t step, const StripStep& strip, std::string_view text, std::string& out);
  void replace(size_t step, const ReplaceStep& replace, std::string_view text, std::string& out);

  const DecoderSteps& steps_;
  std::vector<State> states_;
  std::string pending_;  // byte_level: bytes that may be the start of a character
  size_t limit_ = 0;     // of out.size() in this call
};

}  // namespace halo
