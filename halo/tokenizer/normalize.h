// The normalizer of a tokenizer.json: steps that change text before it is cut. All are linear in
// the text (but for regular expressions: regex.h) and take well-formed UTF-8.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "halo/tokenizer/regex.h"

namespace halo {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

std::string normalize(std::string_view text, NormalForm form);

struct Lowercase {};
// In front of text that is not empty.
struct Prepend {
  std::string text;
};
struct Replace {
  std::variant<std::string, Regex> what;
  std::string with;
};
struct StripSpaces {
  bool left, right;
};

class Normalizer {
 public:
  using Step = std::variant<NormalForm, Lowercase, Prepend, Replace, StripSpaces>;

  Normalizer() = default;
  explicit Normalizer(std::vector<Step> steps) : steps_(std::move(steps)) {}

  // `text` itself where no step changes it, else the result, held by `buffer`. An Error if that
  // would be longer than `max_bytes`.
  std::string_view apply(std::string_view text, std::string& buffer, size_t max_bytes) const;

 private:
  std::vector<Step> steps_;
};

// `text` with all of `what` replaced, leftmost first; longer than `max_bytes` is an Error.
std::string replace_all(std::string_view text, std::string_view what, std::string_view with,
                        size_t max_bytes);

}  // namespace halo
