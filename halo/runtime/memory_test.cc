#include "halo/runtime/memory.h"

#include <gtest/gtest.h>

#include "halo/runtime/run_recipe.h"
#include "tests/gpu.h"

namespace halo {
namespace {

constexpr int64_t kGib = int64_t{1} << 30;

TEST(TotalMemory, OfTheCpuIsPlausible) {
  const int64_t bytes = total_memory(open_machine(MachineRecipe()));
  EXPECT_GT(bytes, kGib / 4);
  EXPECT_LT(bytes, 64 * 1024 * kGib);
}

TEST(TotalMemoryCuda, IsTheCards) {
  HALO_NEEDS_GPU();
  MachineRecipe recipe;
  recipe.device = at::kCUDA;
  const int64_t bytes = total_memory(open_machine(recipe));
  EXPECT_GT(bytes, 4 * kGib);
  EXPECT_LT(bytes, 1024 * kGib);
}

}  // namespace
}  // namespace halo
