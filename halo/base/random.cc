// Philox4x32-10 and the distributions made of its bits.
#include "halo/base/random.h"

#include <xxhash.h>

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "halo/base/check.h"

namespace halo {
namespace {

double to_unit(uint64_t bits) {
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

Random::Random(uint64_t seed, std::string_view purpose, uint64_t step)
    : key_(XXH3_64bits_withSeed(purpose.data(), purpose.size(), seed)), step_(step) {}

std::array<uint64_t, 2> Random::words(uint64_t index) const {
  const auto r = philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                             static_cast<uint32_t>(step_), static_cast<uint32_t>(step_ >> 32)},
                            {static_cast<uint32_t>(key_), static_cast<uint32_t>(key_ >> 32)});
  return {r[0] | uint64_t{r[1]} << 32, r[2] | uint64_t{r[3]} << 32};
}

uint64_t Random::bits(uint64_t index) const {
  return words(index)[0];
}

double Random::uniform(uint64_t index) const {
  return to_unit(bits(index));
}

// Box-Muller; 1 - u is in (0, 1], so the logarithm is finite.
double Random::normal(uint64_t index) const {
  const auto w = words(index);
  return std::sqrt(-2 * std::log(1 - to_unit(w[0]))) *
         std::cos(2 * std::numbers::pi * to_unit(w[1]));
}

int64_t Random::below(uint64_t index, int64_t n) const {
  HALO_CHECK(n > 0, "Random::below: expected n > 0, got {}", n);
  // The high word of bits * n.
  return static_cast<int64_t>(static_cast<unsigned __int128>(bits(index)) * n >> 64);
}

std::vector<int64_t> Random::permutation(int64_t n) const {
  HALO_CHECK(n >= 0, "Random::permutation: expected n >= 0, got {}", n);
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[below(i, i + 1)]);
  return order;
}

}  // namespace halo
