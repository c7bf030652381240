// What the operations' tests share. The tolerance rule: against an fp64 reference, an operation may
// have twice the RMS error of plain arithmetic in the same type, plus one rounding of the result.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "ATen/ATen.h"
#include "ATen/CPUGeneratorImpl.h"

namespace halo::test {

// Standard normal values, the same for the same shape and seed, rounded to `dtype`.
inline at::Tensor random_tensor(at::IntArrayRef shape, uint64_t seed,
                                at::ScalarType dtype = at::kFloat) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions(at::kDouble)).to(at::kFloat).to(dtype);
}

// A leaf with the values of x in `dtype` that collects a gradient.
inline at::Tensor leaf(const at::Tensor& x, at::ScalarType dtype) {
  return x.detach().to(dtype, /*non_blocking=*/false, /*copy=*/true).requires_grad_(true);
}

inline double rms(const at::Tensor& x) {
  return x.numel() == 0 ? 0 : std::sqrt(x.detach().to(at::kDouble).square().mean().item<double>());
}

inline double rms_error(const at::Tensor& got, const at::Tensor& want) {
  return rms(got.detach().to(at::kDouble) - want.detach().to(at::kDouble));
}

// Largest relative rounding error of the type: 2^-24 for fp32, 2^-8 for bf16.
inline double unit_roundoff(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return 0x1p-53;
    case at::kFloat:
      return 0x1p-24;
    case at::kHalf:
      return 0x1p-11;
    default:
      return 0x1p-8;
  }
}

inline void expect_shape(const std::string& name, const at::Tensor& got, const at::Tensor& want) {
  ASSERT_TRUE(got.defined()) << name << " is undefined";
  ASSERT_EQ(got.sizes(), want.sizes()) << name;
  EXPECT_FALSE(got.isnan().any().item<bool>()) << name << " contains NaN";
}

// RMS of the difference at most `ratio` times the RMS of `want`.
inline void expect_rms(const std::string& name, const at::Tensor& got, const at::Tensor& want,
                       double ratio) {
  expect_shape(name, got, want);
  if (::testing::Test::HasFatalFailure()) return;
  EXPECT_LE(rms_error(got, want), ratio * rms(want)) << name;
}

// The tolerance rule. `plain` is the same formula computed simply in got's type.
inline void expect_close(const std::string& name, const at::Tensor& got,
                         const at::Tensor& reference_fp64, const at::Tensor& plain) {
  expect_shape(name, got, reference_fp64);
  if (::testing::Test::HasFatalFailure()) return;
  const double bound =
      2 * rms_error(plain, reference_fp64) + unit_roundoff(got.scalar_type()) * rms(reference_fp64);
  EXPECT_LE(rms_error(got, reference_fp64), bound) << name;
}

// The same bits; NaN is equal to nothing.
inline void expect_equal(const std::string& name, const at::Tensor& got, const at::Tensor& want) {
  expect_shape(name, got, want);
  if (::testing::Test::HasFatalFailure()) return;
  EXPECT_EQ(got.scalar_type(), want.scalar_type()) << name;
  EXPECT_TRUE(at::equal(got.detach(), want.detach())) << name << " differs";
}

// While it lives, at::empty returns NaN (integers: the largest value), so that a forgotten write
// shows.
class PoisonUninitialized {
 public:
  PoisonUninitialized() {
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
    at::globalContext().setDeterministicFillUninitializedMemory(true);
  }
  ~PoisonUninitialized() { at::globalContext().setDeterministicAlgorithms(false, false); }
  PoisonUninitialized(const PoisonUninitialized&) = delete;
  PoisonUninitialized& operator=(const PoisonUninitialized&) = delete;
};

}  // namespace halo::test
