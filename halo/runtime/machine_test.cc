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
  const Machine machine = open_machine(recipe);
  EXPECT_TRUE(machine.device.is_cuda());
  // Its own name ("NVIDIA H200"), not its number.
  EXPECT_EQ(machine.device_name.find("cuda:"), std::string::npos) << machine.device_name;
  EXPECT_FALSE(machine.device_name.empty());
}

}  // namespace
}  // namespace halo
