// How much a test is to do: as its environment asks, or what fits into every run of the tests.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace halo::test {

inline int64_t asked(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::atoll(text) : otherwise;
}

}  // namespace halo::test
