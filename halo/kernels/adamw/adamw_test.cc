#include "halo/kernels/adamw/adamw.h"

#include <cmath>
#include <limits>

#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/kernels/adamw/adamw_forms.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::expect_close;
using test::expect_equal;
using test::expect_rms;
using test::random_tensor;

struct Arenas {
  at::Tensor master, m, v, mask;
};

Arenas make_arenas(int64_t count, at::ScalarType dtype) {
  return {random_tensor({count}, 1).to(dtype), at::zeros({count}, dtype), at::zeros({count}, dtype),
          random_tensor({count}, 2).gt(0).to(dtype)};
}

AdamWStep make_step(int64_t step, double scale = 0.6, double apply = 1) {
  AdamWStep args;
  args.learning_rate = 3e-3;
  args.weight_decay = 0.1;
  args.step = step;
  args.grad_scale = at::scalar_tensor(scale, at::kFloat);
  args.apply = at::scalar_tensor(apply, at::kFloat);
  return args;
}

at::Tensor gradient(int64_t count, int64_t step) {
  return random_tensor({count}, 100 + step);
}

// The header's formula as it stands there.
void plain_step(Arenas& a, const at::Tensor& grad, const AdamWStep& args) {
  const auto g = grad.to(a.master.scalar_type()) * args.grad_scale.item<double>();
  a.m = args.beta1 * a.m + (1 - args.beta1) * g;
  a.v = args.beta2 * a.v + (1 - args.beta2) * g * g;
  const auto m_hat = a.m / (1 - std::pow(args.beta1, args.step));
  const auto v_hat = a.v / (1 - std::pow(args.beta2, args.step));
  a.master = a.master - args.learning_rate * (m_hat / (v_hat.sqrt() + args.eps) +
                                              args.weight_decay * a.mask * a.master);
}

template <class Step>
void expect_ten_steps(int64_t count, Step&& step_form) {
  Arenas got = make_arenas(count, at::kFloat), want = make_arenas(count, at::kDouble);
  Arenas plain = make_arenas(count, at::kFloat);
  for (int64_t step = 1; step <= 10; ++step) {
    const auto args = make_step(step);
    const auto grad = gradient(count, step);
    step_form(got, grad, args);
    plain_step(want, grad, args);
    plain_step(plain, grad, args);
  }
  expect_close("master", got.master, want.master, plain.master);
  expect_close("m", got.m, want.m, plain.m);
  expect_close("v", got.v, want.v, plain.v);
}

TEST(AdamW, TenStepsMatchTheFormula) {
  for (int64_t count : {61, 100'003}) {
    SCOPED_TRACE(count);
    expect_ten_steps(count, [](Arenas& a, const at::Tensor& grad, const AdamWStep& args) {
      at::Tensor compute;
      adamw_step(a.master, grad, a.m, a.v, compute, a.mask, args);
    });
    expect_ten_steps(count, [](Arenas& a, const at::Tensor& grad, const AdamWStep& args) {
      adamw_step_aten(a.master, grad, a.m, a.v, a.mask, args);
    });
  }
}

TEST(AdamWCuda, TenStepsMatchTheFormula) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const auto dtype : {at::kBFloat16, at::kFloat}) {
    for (int64_t count : {1, 61, 100'003}) {
      SCOPED_TRACE(count);
      const at::Tensor compute = at::zeros({count}, at::TensorOptions(dtype).device(at::kCUDA));
      at::Tensor master;
      expect_ten_steps(count, [&](Arenas& a, const at::Tensor& grad, const AdamWStep& args) {
        master = a.master.cuda();
        at::Tensor m = a.m.cuda(), v = a.v.cuda(), copy = compute;
        AdamWStep on_gpu = args;
        on_gpu.grad_scale = args.grad_scale.cuda();
        on_gpu.apply = args.apply.cuda();
        adamw_step(master, grad.cuda(), m, v, copy, a.mask.cuda(), on_gpu);
        a = {master.cpu(), m.cpu(), v.cpu(), a.mask};
      });
      expect_equal("compute", compute, master.to(dtype));
    }
  }
}

TEST(AdamWCuda, SkippedStepChangesNothing) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const int64_t count = 1001;
  const Arenas before = make_arenas(count, at::kFloat);
  at::Tensor master = before.master.cuda(), m = before.m.cuda(), v = before.v.cuda();
  at::Tensor compute = master.to(at::kBFloat16);
  at::Tensor grad = gradient(count, 2).cuda();
  grad[3] = std::numeric_limits<float>::quiet_NaN();
  AdamWStep skip = make_step(2);
  skip.grad_scale = skip.grad_scale.cuda() * std::numeric_limits<double>::quiet_NaN();
  skip.apply = at::zeros({}, master.options());
  adamw_step(master, grad, m, v, compute, {}, skip);
  expect_equal("master", master.cpu(), before.master);
  expect_equal("m", m.cpu(), before.m);
  expect_equal("v", v.cpu(), before.v);
  expect_equal("compute", compute.cpu(), before.master.to(at::kBFloat16));
}

TEST(SquaredNormCuda, MatchesFp64) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (int64_t count : {0, 1, 15, 32'768, 32'769, 500'001}) {
    SCOPED_TRACE(count);
    const auto x = random_tensor({count}, 7) * 1e20;  // its square overflows fp32
    const auto on_gpu = x.cuda();
    const auto got = squared_norm(on_gpu);
    expect_rms("norm", got.cpu(), x.to(at::kDouble).square().sum(), 1e-13);
    expect_equal("again", squared_norm(on_gpu), got);
  }
  auto x = at::ones({100}, at::TensorOptions(at::kCUDA));
  x[40] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isinf(squared_norm(x).item<double>()));
  x[41] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(squared_norm(x).item<double>()));
}

TEST(AdamW, NoMaskMeansNoDecay) {
  Arenas a = make_arenas(50, at::kFloat), b = make_arenas(50, at::kFloat);
  b.mask.zero_();
  at::Tensor compute;
  adamw_step(a.master, gradient(50, 1), a.m, a.v, compute, {}, make_step(1));
  adamw_step(b.master, gradient(50, 1), b.m, b.v, compute, b.mask, make_step(1));
  expect_equal("master", a.master, b.master);
}

TEST(AdamW, WritesTheComputeCopy) {
  Arenas a = make_arenas(77, at::kFloat);
  for (auto dtype : {at::kBFloat16, at::kFloat}) {
    auto compute = at::zeros({77}, dtype);
    adamw_step(a.master, gradient(77, 1), a.m, a.v, compute, a.mask, make_step(1));
    expect_equal("compute", compute, a.master.to(dtype));
  }
  auto compute = a.master;
  adamw_step(a.master, gradient(77, 2), a.m, a.v, compute, a.mask, make_step(2));
  EXPECT_TRUE(compute.is_same(a.master));
}

TEST(AdamW, SkippedStepChangesNothing) {
  const int64_t count = 1001;
  Arenas a = make_arenas(count, at::kFloat);
  auto compute = a.master.to(at::kBFloat16);
  adamw_step(a.master, gradient(count, 1), a.m, a.v, compute, a.mask, make_step(1));
  const Arenas before{a.master.clone(), a.m.clone(), a.v.clone(), a.mask};
  const auto compute_before = compute.clone();
  auto grad = gradient(count, 2);
  grad[3] = std::numeric_limits<float>::quiet_NaN();
  grad[500] = std::numeric_limits<float>::infinity();
  const auto skip = make_step(2, std::numeric_limits<double>::quiet_NaN(), 0);
  adamw_step(a.master, grad, a.m, a.v, compute, a.mask, skip);
  adamw_step_aten(a.master, grad, a.m, a.v, a.mask, skip);
  expect_equal("master", a.master, before.master);
  expect_equal("m", a.m, before.m);
  expect_equal("v", a.v, before.v);
  expect_equal("compute", compute, compute_before);
}

TEST(AdamW, BitsDoNotDependOnTheThreads) {
  const int64_t count = 200'001;
  Arenas one = make_arenas(count, at::kFloat), two = make_arenas(count, at::kFloat);
  at::Tensor compute;
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  adamw_step(one.master, gradient(count, 1), one.m, one.v, compute, one.mask, make_step(1));
  at::set_num_threads(2);
  adamw_step(two.master, gradient(count, 1), two.m, two.v, compute, two.mask, make_step(1));
  at::set_num_threads(threads);
  expect_equal("master", two.master, one.master);
  expect_equal("v", two.v, one.v);
}

TEST(AdamW, RefusesArenasOfOtherLengths) {
  Arenas a = make_arenas(10, at::kFloat);
  at::Tensor compute;
  EXPECT_THROW(adamw_step(a.master, gradient(9, 1), a.m, a.v, compute, {}, make_step(1)), Error);
}

TEST(SquaredNorm, MatchesFp64AndDoesNotDependOnTheThreads) {
  const int threads = at::get_num_threads();
  for (int64_t count : {0, 1, 15, 32'768, 32'769, 500'001}) {
    SCOPED_TRACE(count);
    const auto x = random_tensor({count}, 7) * 1e20;  // its square overflows fp32
    at::set_num_threads(1);
    const auto one = squared_norm(x);
    at::set_num_threads(2);
    expect_equal("two threads", squared_norm(x), one);
    at::set_num_threads(threads);
    const auto want = x.to(at::kDouble).square().sum();
    expect_rms("norm", one, want, 1e-13);
    expect_rms("device form", squared_norm_aten(x), want, 1e-13);
    EXPECT_EQ(one.scalar_type(), at::kDouble);
  }
}

TEST(SquaredNorm, ShowsNonFiniteValues) {
  auto x = random_tensor({100}, 7);
  x[40] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isinf(squared_norm(x).item<double>()));
  x[41] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(squared_norm(x).item<double>()));
}

}  // namespace
}  // namespace halo
