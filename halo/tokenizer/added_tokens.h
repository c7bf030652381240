// Added tokens (<|endoftext|> and the like) found in text before it is cut into pieces.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace halo {

class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  explicit AddedTokenMatcher(std::vector<std::pair<std::string, int32_t>> tokens);

  struct Match {
    size_t begin, end;
    int32_t id;
  };
  // The leftmost match at or after `from`, the longest of those that begin there.
  std::optional<Match> find(std::string_view text, size_t from) const;

 private:
  std::vector<std::pair<std::string, int32_t>> tokens_;  // sorted by text
  std::string first_bytes_;
};

}  // namespace halo
