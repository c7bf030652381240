#include "halo/kernels/linear/fused_linear.h"

#include "halo/base/check.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::expect_close;
using test::expect_equal;
using test::random_tensor;

constexpr double kEps = 1e-5;

struct Case {
  int64_t rows, inputs, outputs;
  bool norm = false, gate = false, bias = false, swiglu = false, residual = false, wide = false;
  bool int8 = false;
};

at::Tensor in(const at::Tensor& x, at::ScalarType dtype, at::Device device) {
  return x.defined() ? x.to(device, dtype) : x;
}

// The operands in `dtype`, rounded to bf16 first so that every type means the same numbers.
FusedLinear operands(const Case& c, at::ScalarType dtype, at::Device device) {
  const auto make = [&](at::IntArrayRef shape, uint64_t seed, double by) {
    return in((random_tensor(shape, seed) * by).to(at::kBFloat16), dtype, device);
  };
  FusedLinear args;
  args.eps = kEps;
  args.swiglu = c.swiglu;
  args.wide = c.wide;
  const int64_t weight_rows = (c.swiglu ? 2 : 1) * c.outputs;
  if (c.int8) {
    args.w.value = (random_tensor({weight_rows, c.inputs}, 1) * 40).clamp(-128, 127);
    args.w.value = args.w.value.round().to(at::kChar).to(device);
    args.w.scale = random_tensor({weight_rows}, 7).abs() / (40 * std::sqrt(c.inputs));
    args.w.scale = args.w.scale.to(device);
  } else {
    args.w.value = make({weight_rows, c.inputs}, 1, 1 / std::sqrt(c.inputs));
  }
  if (c.norm) args.norm.value = make({c.inputs}, 2, 1);
  // Rows of a wider tensor, as the gate of a stacked projection is.
  if (c.gate) args.gate = make({c.rows, 3 * c.inputs}, 3, 2).narrow(1, c.inputs, c.inputs);
  if (c.bias) args.bias.value = make({c.outputs}, 4, 1);
  if (c.residual) args.residual = make({c.rows, c.outputs}, 5, 1);
  return args;
}

at::Tensor rows_of(const Case& c, at::ScalarType dtype, at::Device device) {
  return in((random_tensor({c.rows, c.inputs}, 6) * 2).to(at::kBFloat16), dtype, device);
}

// The formula, plainly, in the operands' type.
at::Tensor formula(const at::Tensor& x, const FusedLinear& a) {
  at::Tensor z = x;
  if (a.norm.defined()) z = a.norm.value * (z * (z.square().mean(1, true) + kEps).rsqrt());
  if (a.gate.defined()) z = z * a.gate.sigmoid();
  at::Tensor y = a.w.scale.defined()
                     ? z.mm(a.w.value.to(z.scalar_type()).t()) * a.w.scale.to(z.scalar_type())
                     : z.mm(a.w.value.t());
  if (a.swiglu) y = at::silu(y.chunk(2, 1)[0]) * y.chunk(2, 1)[1];
  if (a.bias.defined()) y = y + a.bias.value;
  return a.residual.defined() ? y + a.residual : y;
}

const std::vector<Case> kCases{
    {.rows = 1, .inputs = 192, .outputs = 48},
    {.rows = 1, .inputs = 2048, .outputs = 512, .norm = true},
    {.rows = 2, .inputs = 576, .outputs = 96, .norm = true, .gate = true, .residual = true},
    {.rows = 3, .inputs = 64, .outputs = 16, .gate = true, .bias = true},
    {.rows = 4, .inputs = 576, .outputs = 1536, .norm = true, .swiglu = true},
    {.rows = 5, .inputs = 6144, .outputs = 64, .residual = true},
    {.rows = 7, .inputs = 2048, .outputs = 4800, .norm = true, .wide = true},
    {.rows = 8, .inputs = 2048, .outputs = 6144, .norm = true, .swiglu = true},
    {.rows = 8, .inputs = 6144, .outputs = 32, .bias = true, .residual = true, .wide = true},
    {.rows = 9, .inputs = 192, .outputs = 48, .norm = true},
    {.rows = 1, .inputs = 64, .outputs = 16, .int8 = true},
    {.rows = 1, .inputs = 2048, .outputs = 512, .norm = true, .wide = true, .int8 = true},
    {.rows = 2, .inputs = 2112, .outputs = 96, .gate = true, .residual = true, .int8 = true},
    {.rows = 3, .inputs = 6144, .outputs = 64, .bias = true, .residual = true, .int8 = true},
    {.rows = 4, .inputs = 576, .outputs = 1536, .norm = true, .swiglu = true, .int8 = true},
    {.rows = 9, .inputs = 192, .outputs = 48, .norm = true, .int8 = true}};

TEST(FusedLinear, EqualsTheFormula) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} x {} -> {}", c.rows, c.inputs, c.outputs));
    const at::Tensor want =
        formula(rows_of(c, at::kDouble, at::kCPU), operands(c, at::kDouble, at::kCPU));
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const FusedLinear args = operands(c, dtype, at::kCPU);
      const at::Tensor x = rows_of(c, dtype, at::kCPU), plain = formula(x, args);
      const test::PoisonUninitialized poison;
      for (const auto kernels : {Kernels::kFast, Kernels::kReference})
        expect_close("y", fused_linear(x, args, kernels), want, plain);
    }
  }
}

TEST(FusedLinear, RefusesWrongShapes) {
  const Case c{.rows = 2, .inputs = 64, .outputs = 16, .gate = true, .residual = true};
  const at::Tensor x = rows_of(c, at::kFloat, at::kCPU);
  FusedLinear args = operands(c, at::kFloat, at::kCPU);
  args.residual = args.residual.t();
  EXPECT_THROW(fused_linear(x, args, Kernels::kFast), Error);
  args = operands(c, at::kFloat, at::kCPU);
  args.gate = args.gate.narrow(1, 0, 32);
  EXPECT_THROW(fused_linear(x, args, Kernels::kFast), Error);
  EXPECT_THROW(fused_linear(x.narrow(1, 0, 32), operands(c, at::kFloat, at::kCPU), Kernels::kFast),
               Error);
}

TEST(FusedLinearCuda, EqualsTheFormula) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} x {} -> {}", c.rows, c.inputs, c.outputs));
    const at::Tensor want =
        formula(rows_of(c, at::kDouble, at::kCPU), operands(c, at::kDouble, at::kCPU));
    const FusedLinear args = operands(c, at::kBFloat16, at::kCUDA);
    const at::Tensor x = rows_of(c, at::kBFloat16, at::kCUDA), plain = formula(x, args).cpu();
    const test::PoisonUninitialized poison;
    expect_close("y", fused_linear(x, args, Kernels::kFast).cpu(), want, plain);
  }
}

// A row alone and among others, and the same call twice.
TEST(FusedLinearCuda, BitsOfARowDoNotDependOnTheOthers) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  Case c{.rows = 4, .inputs = 2048, .outputs = 1024, .norm = true, .gate = true, .residual = true};
  for (const bool int8 : {false, true}) {
    c.int8 = int8;
    const FusedLinear args = operands(c, at::kBFloat16, at::kCUDA);
    const at::Tensor x = rows_of(c, at::kBFloat16, at::kCUDA);
    const at::Tensor together = fused_linear(x, args, Kernels::kFast);
    expect_equal("again", fused_linear(x, args, Kernels::kFast).cpu(), together.cpu());
    for (int64_t n = 0; n < c.rows; ++n) {
      FusedLinear one = args;
      one.gate = args.gate.narrow(0, n, 1);
      one.residual = args.residual.narrow(0, n, 1);
      expect_equal("row", fused_linear(x.narrow(0, n, 1), one, Kernels::kFast).cpu(),
                   together.narrow(0, n, 1).cpu());
    }
  }
}

}  // namespace
}  // namespace halo
