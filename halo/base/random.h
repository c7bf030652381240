// Counter-based random numbers: every draw is a pure function of (seed, purpose, step, index), so
// no order of calls, thread count or resume can change it. Philox4x32-10 (Salmon et al. 2011).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace halo {

// The generator itself: 128 random bits for a counter under a key.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// One stream: `purpose` keeps uses apart ("init", "shuffle", "needle", ...).
class Random {
 public:
  Random(uint64_t seed, std::string_view purpose, uint64_t step = 0);

  uint64_t bits(uint64_t index) const;
  double uniform(uint64_t index) const;            // [0, 1), 53 bits
  double normal(uint64_t index) const;             // mean 0, variance 1
  int64_t below(uint64_t index, int64_t n) const;  // 0 .. n-1, unbiased to n * 2^-64
  // A permutation of 0 .. n-1 (Fisher-Yates).
  std::vector<int64_t> permutation(int64_t n) const;

 private:
  std::array<uint64_t, 2> words(uint64_t index) const;

  uint64_t key_;
  uint64_t step_;
};

}  // namespace halo
