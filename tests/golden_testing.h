// Where golden fixtures lie, for unit tests that read all of them.
#pragma once

#include <filesystem>
#include <vector>

#include "tests/places.h"

namespace halo::test {

// tests/golden/fixtures, and where it is there a larger tree beside the checkout.
inline std::vector<std::filesystem::path> golden_roots() {
  std::vector<std::filesystem::path> roots = {source_dir() / "tests/golden/fixtures"};
  const std::filesystem::path beside = source_dir() / "../shared/golden";
  if (std::filesystem::exists(beside)) roots.push_back(beside);
  return roots;
}

}  // namespace halo::test
