// Sequences by their lengths, for tests.
#pragma once

#include <vector>

#include "halo/kernels/common/sequences.h"

namespace halo::test {

inline Sequences sequences_of(const std::vector<int64_t>& lengths, at::Device device = at::kCPU) {
  std::vector<int64_t> offsets{0};
  for (const int64_t length : lengths) offsets.push_back(offsets.back() + length);
  return {offsets, device};
}

}  // namespace halo::test
