#include "halo/kernels/linear/linear.h"

#include "halo/base/check.h"
#include "halo/kernels/linear/linear_forms.h"
#include "tests/gpu.h"
#include "tests/gradient_check.h"

namespace halo {
namespace {

using test::check_operation;
using test::OperationCase;
using test::random_tensor;

OperationCase linear_case(int64_t n, int64_t inputs, int64_t outputs, bool bias, Kernels kernels) {
  OperationCase c;
  c.inputs = {random_tensor({n, inputs}, 1)};
  c.weights = {random_tensor({outputs, inputs}, 2)};
  if (bias) c.weights.push_back(random_tensor({outputs}, 3));
  c.formula = [](const auto& x, const auto& w) {
    const at::Tensor y = x[0].mm(w[0].t());
    return std::vector{w.size() > 1 ? y + w[1] : y};
  };
  c.operation = [kernels](const auto& x, const auto& w) {
    return std::vector{linear(x[0], w[0], w.size() > 1 ? w[1] : Weight{}, kernels)};
  };
  c.same_bits_on_any_threads = false;
  return c;
}

TEST(Linear, ForwardAndGradients) {
  for (const Kernels kernels : {Kernels::kFast, Kernels::kReference}) {
    for (const bool bias : {false, true}) {
      SCOPED_TRACE(kernels == Kernels::kFast ? "fast" : "reference");
      check_operation(linear_case(1, 50, 7, bias, kernels), at::kFloat);
      check_operation(linear_case(70, 96, 130, bias, kernels), at::kFloat);
      check_operation(linear_case(33, 48, 21, bias, kernels), at::kBFloat16);
    }
  }
}

TEST(Linear, GradientsAddUp) {
  const at::Tensor x = random_tensor({20, 16}, 1);
  const Weight w = test::trained_weight(random_tensor({8, 16}, 2), at::kFloat);
  const Weight bias = test::trained_weight(random_tensor({8}, 3), at::kFloat);
  linear(x, w, bias, Kernels::kFast).sum().backward();
  const at::Tensor w_once = w.grad.clone(), bias_once = bias.grad.clone();
  linear(x, w, bias, Kernels::kFast).sum().backward();
  test::expect_rms("weight", w.grad, w_once * 2, 1e-6);
  test::expect_rms("bias", bias.grad, bias_once * 2, 1e-6);
}

// A row alone, in any batch, split anywhere, on any number of threads.
TEST(Linear, ReferenceRowsHaveTheSameBits) {
  for (const int64_t inputs : {192, 200, 13}) {
    const at::Tensor x = random_tensor({75, inputs}, 1);
    const Weight w{random_tensor({101, inputs}, 2), {}};
    const Weight bias{random_tensor({101}, 3), {}};
    const auto run = [&](const at::Tensor& rows) {
      return linear(rows, w, bias, Kernels::kReference);
    };
    const at::Tensor all = run(x);
    const int threads = at::get_num_threads();
    at::set_num_threads(4);
    test::expect_equal("threads", run(x), all);
    at::set_num_threads(threads);
    for (const int64_t cut : {1, 2, 31, 32, 33, 74}) {
      test::expect_equal("first part", run(x.narrow(0, 0, cut)), all.narrow(0, 0, cut));
      test::expect_equal("second part", run(x.narrow(0, cut, 75 - cut)),
                         all.narrow(0, cut, 75 - cut));
    }
    const Weight few{w.value.narrow(0, 40, 3).contiguous(), {}};
    test::expect_equal("other outputs",
                       linear(x, few, {bias.value.narrow(0, 40, 3), {}}, Kernels::kReference),
                       all.narrow(1, 40, 3).contiguous());
  }
}

// bf16 weights of fp32 activations are their fp32 values.
TEST(Linear, WeightsInBf16AreReadAsTheyAre) {
  for (const int64_t inputs : {192, 13}) {
    const at::Tensor x = random_tensor({50, inputs}, 1);
    const Weight w{random_tensor({101, inputs}, 2).to(at::kBFloat16), {}};
    const Weight same{w.value.to(at::kFloat), {}}, bias{random_tensor({101}, 3), {}};
    const at::Tensor expected = linear(x, same, bias, Kernels::kReference);
    test::expect_equal("all", linear(x, w, bias, Kernels::kReference), expected);
    // A few rows are the same in the fast form.
    test::expect_equal("few", linear(x.narrow(0, 3, 5), w, bias, Kernels::kFast),
                       expected.narrow(0, 3, 5));
    // Many may be rounded to bf16, operands and sums, but for logits.
    const at::Tensor many = linear(x, w, bias, Kernels::kFast);
    if (multiplies_bf16()) {
      test::expect_close("many", many, expected,
                         at::linear(x.to(at::kBFloat16), w.value).to(at::kFloat) + bias.value);
    } else {
      test::expect_rms("many", many, expected, 1e-6);
    }
    test::expect_rms("logits", linear_to_fp32(x, w, Kernels::kFast) + bias.value, expected, 1e-6);
  }
  const Weight trained = test::trained_weight(at::ones({4, 3}).to(at::kBFloat16), at::kBFloat16);
  EXPECT_THROW(linear(at::ones({2, 3}), trained, {}, Kernels::kFast), Error);
}

// Weights in int8 with scales, and the matrix that they stand for in fp64.
struct Int8Weight {
  Weight w;
  at::Tensor exact;
};

Int8Weight int8_weight(int64_t outputs, int64_t inputs) {
  const at::Tensor value = (random_tensor({outputs, inputs}, 2) * 40).clamp(-127, 127).round();
  const at::Tensor scale = random_tensor({outputs}, 3).abs() * 0.01 + 0.001;
  return {{value.to(at::kChar), {}, scale},
          value.to(at::kDouble) * scale.to(at::kDouble).unsqueeze(1)};
}

TEST(Linear, WeightsInInt8EqualWhatTheyStandFor) {
  for (const int64_t inputs : {192, 200, 13}) {
    const auto [w, exact] = int8_weight(101, inputs);
    EXPECT_TRUE(at::equal(dense_matrix(w, at::kFloat), w.value * w.scale.unsqueeze(1)));
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor x = random_tensor({70, inputs}, 1, dtype);
      const Weight bias{random_tensor({101}, 4, dtype), {}};
      const at::Tensor want = x.to(at::kDouble).mm(exact.t()) + bias.value.to(at::kDouble);
      const at::Tensor plain = x.mm(dense_matrix(w, dtype).t()) + bias.value;
      const test::PoisonUninitialized poison;
      for (const auto kernels : {Kernels::kFast, Kernels::kReference}) {
        test::expect_close("many rows", linear(x, w, bias, kernels), want, plain);
        test::expect_close("a few", linear(x.narrow(0, 3, 5), w, bias, kernels),
                           want.narrow(0, 3, 5), plain.narrow(0, 3, 5));
      }
    }
  }
}

// Alone, in any batch, on any number of threads; in the fast form among a few. So many weights that
// threads share them.
TEST(Linear, RowsOfWeightsInInt8HaveTheSameBits) {
  constexpr int64_t kInputs = 1000;
  const Weight w = int8_weight(401, kInputs).w;
  const at::Tensor x = random_tensor({75, kInputs}, 1);
  const at::Tensor all = linear(x, w, {}, Kernels::kReference);
  const int threads = at::get_num_threads();
  at::set_num_threads(4);
  test::expect_equal("threads", linear(x, w, {}, Kernels::kReference), all);
  at::set_num_threads(threads);
  for (const int64_t cut : {1, 2, 31, 74}) {
    test::expect_equal("part", linear(x.narrow(0, cut, 75 - cut), w, {}, Kernels::kReference),
                       all.narrow(0, cut, 75 - cut));
  }
  test::expect_equal("few", linear(x.narrow(0, 3, 5), w, {}, Kernels::kFast), all.narrow(0, 3, 5));
}

TEST(Linear, RefusesWeightsInInt8ThatAreNone) {
  const at::Tensor x = at::ones({2, 3});
  const Weight w{at::ones({4, 3}).to(at::kChar), {}, at::ones({4})};
  EXPECT_THROW(linear(x, {w.value, {}}, {}, Kernels::kFast), Error);
  EXPECT_THROW(linear(x, {w.value, {}, at::ones({3})}, {}, Kernels::kFast), Error);
  EXPECT_THROW(linear(x, {at::ones({4, 3}), {}, w.scale}, {}, Kernels::kFast), Error);
  EXPECT_THROW(linear(x.clone().requires_grad_(true), w, {}, Kernels::kFast), Error);
}

// Half a step of three bits of fraction, or of the smallest of a row.
TEST(Linear, MatricesInFp8AreTheNearest) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    at::Tensor matrix = random_tensor({40, 96}, 1, dtype);
    matrix[3].mul_(1e-6);
    matrix[4].zero_();
    const Weight w = to_fp8(matrix);
    const at::Tensor exact = matrix.to(at::kDouble);
    const at::Tensor apart = (dense_matrix(w, at::kFloat).to(at::kDouble) - exact).abs();
    const at::Tensor least = w.scale.to(at::kDouble).unsqueeze(1) * std::exp2(-10);
    EXPECT_TRUE(apart.le(exact.abs() * std::exp2(-4) * 1.01 + least).all().item<bool>());
    EXPECT_EQ(dense_matrix(w, at::kFloat)[4].abs().max().item<float>(), 0);
    EXPECT_EQ(w.value.to(at::kFloat).abs().amax({1})[0].item<float>(), 448);
  }
}

// A product of what both stand for, rounded once.
TEST(Linear, WeightsInFp8EqualWhatTheyStandFor) {
  const at::Tensor matrix = random_tensor({48, 64}, 2);
  const Weight w = to_fp8(matrix);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = random_tensor({35, 64}, 1, dtype);
    const Weight bias{random_tensor({48}, 4, dtype), {}};
    const at::Tensor rows = dense_matrix(to_fp8(x), at::kFloat);
    const at::Tensor want =
        rows.to(at::kDouble).mm(dense_matrix(w, at::kFloat).to(at::kDouble).t()) +
        bias.value.to(at::kDouble);
    const at::Tensor y = linear(x, w, bias, Kernels::kFast);
    EXPECT_EQ(y.scalar_type(), dtype);
    test::expect_close("product", y, want,
                       rows.to(dtype).mm(dense_matrix(w, dtype).t()) + bias.value);
    test::expect_rms("from the exact one", y.to(at::kFloat),
                     x.to(at::kFloat).mm(matrix.t()) + bias.value.to(at::kFloat), 0.05);
  }
  const at::Tensor x = random_tensor({2, 64}, 1).requires_grad_(true);
  EXPECT_THROW(linear(x, w, {}, Kernels::kFast), Error);
}

TEST(LinearCuda, ProductsInFp8EqualThoseOnTheCpu) {
  HALO_NEEDS_GPU();
  for (const int64_t rows : {16, 100, 6144}) {
    const at::Tensor x = random_tensor({rows, 2048}, 1, at::kBFloat16);
    const at::Tensor matrix = random_tensor({512, 2048}, 2, at::kBFloat16);
    const Weight bias{random_tensor({512}, 3, at::kBFloat16), {}};
    const at::Tensor want = linear(x, to_fp8(matrix), bias, Kernels::kFast);
    const Weight there{bias.value.cuda(), {}};
    const at::Tensor y = linear(x.cuda(), to_fp8(matrix.cuda()), there, Kernels::kFast);
    // The tensor cores keep fewer bits of a sum than fp32.
    test::expect_rms("product", y.cpu().to(at::kFloat), want.to(at::kFloat), 4e-3);
  }
}

TEST(Linear, RefusesWrongShapes) {
  const Weight w{at::ones({4, 3}), {}};
  EXPECT_THROW(linear(at::ones({2, 5}), w, {}, Kernels::kFast), Error);
  EXPECT_THROW(linear(at::ones({2, 3}), w, {at::ones({3}), {}}, Kernels::kFast), Error);
  EXPECT_THROW(linear(at::ones({2, 3}, at::kBFloat16), w, {}, Kernels::kFast), Error);
}

}  // namespace
}  // namespace halo
