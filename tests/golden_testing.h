// Where golden fixtures lie, for unit tests that read all of them.
#pragma once

#include <filesystem>
#include <vector>

namespace halo::test {

// tests/golden/fixtures, and where it is there a larger tree beside the checkout.
inline std::vector<std::filesystem::path> golden_roots() {
  std::vector<std::filesystem::path> roots = {HALO_SOURCE_DIR "/tests/golden/fixtures"};
  const std::filesystem::path beside = HALO_SOURCE_DIR "/../shared/golden";
  if (std::filesystem::exists(beside)) roots.push_back(beside);
  return roots;
}

}  // namespace halo::test
