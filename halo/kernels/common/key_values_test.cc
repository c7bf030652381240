#include "halo/kernels/common/key_values.h"

#include <limits>

#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::expect_equal;
using test::random_tensor;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(KeyValues, Int8IsWithinHalfAStep) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    // Heads of very different sizes.
    const at::Tensor x =
        (random_tensor({50, 3, 64}, 1) * at::logspace(-12, 12, 50).view({50, 1, 1})).to(dtype);
    const Int8Rows rounded = to_int8(x);
    EXPECT_EQ(rounded.values.scalar_type(), at::kChar);
    EXPECT_EQ(rounded.scales.sizes(), at::IntArrayRef({50, 3}));
    expect_equal("largest", rounded.values.to(at::kInt).abs().amax(-1),
                 at::full({50, 3}, 127, at::kInt));
    const at::Tensor off =
        (from_int8(rounded, at::kFloat) - x.to(at::kFloat)).abs().amax(-1) / rounded.scales;
    EXPECT_LE(off.max().item<float>(), 0.5001F);
  }
}

TEST(KeyValues, ZerosStayAndWhatIsNoNumberShows) {
  at::Tensor x = random_tensor({4, 8}, 1);
  x[0].zero_();
  x[1][3] = kNaN;
  x[2][5] = -kInfinity;
  const at::Tensor back = from_int8(to_int8(x), at::kFloat);
  expect_equal("zeros", back[0], at::zeros({8}));
  for (const int64_t row : {1, 2}) EXPECT_FALSE(back[row].isfinite().all().item<bool>()) << row;
  EXPECT_TRUE(back[3].isfinite().all().item<bool>());
}

// Blocks of 4 tokens; what is not stored is NaN, or a scale of NaN.
KeyValueBlocks blocks_of(bool int8, at::Device device) {
  const auto options = at::TensorOptions().device(device).dtype(at::kFloat);
  KeyValueBlocks out;
  out.keys = int8 ? at::zeros({3, 4, 2, 16}, options.dtype(at::kChar))
                  : at::full({3, 4, 2, 16}, kNaN, options);
  out.values = out.keys.clone();
  if (!int8) return out;
  out.key_scales = at::full({3, 2, 4}, kNaN, options);
  out.value_scales = out.key_scales.clone();
  return out;
}

void check_rows(at::Device device) {
  const at::Tensor rows = at::tensor({9, 3, 4, 11}, at::kLong).to(device);
  const at::Tensor x = random_tensor({4, 2, 16}, 2);
  for (const bool int8 : {false, true}) {
    const KeyValueBlocks blocks = blocks_of(int8, device);
    ASSERT_TRUE(are_blocks(blocks));
    store_tokens(blocks.keys, blocks.key_scales, rows, x.to(device));
    const at::Tensor want = int8 ? from_int8(to_int8(x), at::kFloat) : x;
    expect_equal("all", rows_at(blocks.keys, blocks.key_scales, rows, at::kFloat).cpu(), want);
    const at::Tensor one = at::tensor({4}, at::kLong).to(device);
    expect_equal("one", rows_at(blocks.keys, blocks.key_scales, one, at::kBFloat16).cpu(),
                 want.narrow(0, 2, 1).to(at::kBFloat16));
    const at::Tensor other = at::tensor({5}, at::kLong).to(device);
    EXPECT_FALSE(at::equal(rows_at(blocks.keys, blocks.key_scales, other, at::kFloat).cpu(),
                           want.narrow(0, 2, 1)));
  }
}

TEST(KeyValues, RowsComeBackFromTheirPlaces) {
  check_rows(at::kCPU);
}

TEST(KeyValuesCuda, RowsComeBackFromTheirPlaces) {
  HALO_NEEDS_GPU();
  check_rows(at::kCUDA);
}

TEST(KeyValuesCuda, Int8HasTheBitsOfTheCpu) {
  HALO_NEEDS_GPU();
  const at::Tensor x =
      random_tensor({500, 3, 64}, 1) * at::logspace(-30, 30, 500).view({500, 1, 1});
  const Int8Rows here = to_int8(x), there = to_int8(x.to(at::kCUDA));
  expect_equal("values", there.values.cpu(), here.values);
  expect_equal("scales", there.scales.cpu(), here.scales);
}

TEST(KeyValues, BlocksThatDoNotFitAreNone) {
  KeyValueBlocks blocks = blocks_of(true, at::kCPU);
  blocks.value_scales = at::Tensor();
  EXPECT_FALSE(are_blocks(blocks));
  blocks = blocks_of(true, at::kCPU);
  blocks.key_scales = at::ones({3, 4, 2});
  EXPECT_FALSE(are_blocks(blocks));
  blocks = blocks_of(false, at::kCPU);
  blocks.values = blocks.values.to(at::kBFloat16);
  EXPECT_FALSE(are_blocks(blocks));
}

}  // namespace
}  // namespace halo
