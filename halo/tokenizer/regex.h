// Patterns that have no scanner (pieces.h), through Oniguruma, which the reference uses as well.
// It backtracks: its steps are limited, and a text that needs more is refused with an Error.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace halo {

class Regex {
 public:
  // A pattern that cannot be used is an Error that names it and `file`. Callouts, subexpression
  // calls, absent operators and conditionals are not known.
  Regex(std::string pattern, const std::string& file);

  // Calls found(begin, end) for the matches from left to right in well-formed UTF-8. An empty match
  // right after another match is none.
  void for_each_match(std::string_view text,
                      const std::function<void(size_t begin, size_t end)>& found) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace halo
