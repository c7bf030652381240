#include "halo/model/weight_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "ATen/ATen.h"
#include "halo/model/parameters.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::error_of;
using testing::AllOf;
using testing::HasSubstr;

std::string error_of_values(const std::string& name, const at::Tensor& values) {
  return error_of([&] { check_values(to_view(name, values), "folder"); });
}

TEST(WeightValues, NanAndInfinityAreNamedWithTheirPlace) {
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble}) {
    at::Tensor values = at::ones({3, 5}, at::TensorOptions().dtype(type));
    EXPECT_EQ(error_of_values("model.norm.weight", values), "no error");
    values[1][4] = -std::numeric_limits<double>::infinity();
    EXPECT_THAT(error_of_values("x.weight", values),
                AllOf(HasSubstr("folder: tensor 'x.weight' has 1 value that is NaN or infinite"),
                      HasSubstr("the first at [1, 4]")));
    values[2][0] = std::numeric_limits<double>::quiet_NaN();
    // Biases as well.
    EXPECT_THAT(error_of_values("x.bias", values), HasSubstr("has 2 values that are NaN"));
  }
  // The largest and the smallest numbers are numbers.
  EXPECT_EQ(error_of_values("x", at::full({2}, std::numeric_limits<float>::max())), "no error");
  EXPECT_EQ(error_of_values("x", at::full({2}, std::numeric_limits<float>::denorm_min())),
            "no error");
  // In a tensor of several grains, at its very end.
  at::Tensor large = at::ones({1 << 20});
  large[(1 << 20) - 1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(error_of_values("x", large), HasSubstr("the first at [1048575]"));
}

TEST(WeightValues, ZeroThroughoutIsRefusedWhereNothingMakesIt) {
  at::Tensor zeros = at::zeros({4, 4});
  zeros[0][1] = -0.0f;
  const std::string layer = "model.layers.0.";
  for (const std::string& name :
       {std::string("model.embed_tokens.weight"), std::string("lm_head.weight"),
        std::string("model.norm.weight"), layer + "self_attn.q_proj.weight",
        layer + "self_attn.o_proj.weight", layer + "mlp.down_proj.weight",
        layer + "input_layernorm.weight"})
    EXPECT_THAT(error_of_values(name, zeros), HasSubstr("'" + name + "' is zero throughout"));
  for (const std::string& name :
       {layer + "self_attn.q_proj.bias", layer + "self_attn.o_gate.weight",
        layer + "self_attn.z_proj.weight", layer + "self_attn.o_norm.weight",
        layer + "self_attn.decay_proj.weight"})
    EXPECT_EQ(error_of_values(name, zeros), "no error") << name;
  // Rows of zeros are fine: tokens that were never seen.
  zeros[3][3] = 1;
  EXPECT_EQ(error_of_values("model.embed_tokens.weight", zeros), "no error");
  EXPECT_EQ(error_of_values("model.embed_tokens.weight", at::zeros({0, 4})), "no error");
}

}  // namespace
}  // namespace halo
