// The pre-tokenizer of a tokenizer.json: steps that cut text into pieces, each working on the
// pieces of the one before. Text is well-formed UTF-8.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "halo/tokenizer/pieces.h"
#include "halo/tokenizer/regex.h"

namespace halo {

// What becomes of the text that a pattern matches.
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct Split {
  std::variant<Pattern, Regex, std::string> pattern;  // a string is looked for as it is
  SplitBehavior behavior;
  bool invert;  // what does not match counts as match
};

struct Digits {
  bool individual;
};

// The alphabet of bytes is no step here: Bpe takes the bytes of a piece itself.
struct ByteLevel {
  bool add_prefix_space;
  bool use_regex;  // GPT-2's pattern
};

struct Metaspace {
  enum class PrependScheme { kAlways, kFirst, kNever };
  std::string replacement;  // one character, for a space
  PrependScheme prepend;
  bool split;
};

class PreTokenizer {
 public:
  using Step = std::variant<Split, Digits, ByteLevel, Metaspace>;
  using OnPiece = std::function<void(std::string_view)>;

  PreTokenizer() = default;
  explicit PreTokenizer(std::vector<Step> steps) : steps_(std::move(steps)) {}

  // `begins_text`: nothing of the whole text is before `text`.
  void run(std::string_view text, bool begins_text, const OnPiece& on_piece) const {
    run_step(0, text, begins_text, on_piece);
  }

 private:
  void run_step(size_t step, std::string_view text, bool begins_text,
                const OnPiece& on_piece) const;

  std::vector<Step> steps_;  // few: run_step recurses once a step
};

}  // namespace halo
