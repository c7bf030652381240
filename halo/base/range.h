// A part of a flat array.
#pragma once

#include <algorithm>
#include <cstdint>

namespace halo {

struct Range {
  int64_t begin = 0, size = 0;  // elements
  int64_t end() const { return begin + size; }
  bool operator==(const Range&) const = default;
};

// What two have in common; size 0 where that is nothing.
inline Range intersection(const Range& a, const Range& b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max<int64_t>(0, std::min(a.end(), b.end()) - begin)};
}

}  // namespace halo
