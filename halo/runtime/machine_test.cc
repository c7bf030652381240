#include "halo/runtime/machine.h"

#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "tests/gpu.h"

namespace halo {
namespace {

TEST(OpenMachineCuda, ByCommandsThatTakeNoGradients) {
  HALO_NEEDS_GPU();
  at::NoGradGuard no_grad;
  MachineRecipe recipe;
  recipe.device = at::kCUDA;
  EXPECT_TRUE(open_machine(recipe).device.is_cuda());
}

}  // namespace
}  // namespace halo
