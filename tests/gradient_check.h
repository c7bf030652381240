// One list of checks for every operation with a gradient: forward and all gradients against fp64
// with the tolerance of op_check.h, every combination of frozen and trained, and the same bits on
// any number of threads; on a GPU, our kernels and LibTorch's.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ATen/Parallel.h"
#include "halo/kernels/common/weight.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo::test {

struct OperationCase {
  std::vector<at::Tensor> inputs;   // activations, fp32 values
  std::vector<at::Tensor> weights;  // fp32 values
  // The formula in plain differentiable LibTorch operations, for any floating type.
  std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs,
                                        const std::vector<at::Tensor>& weights)>
      formula;
  std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs,
                                        const std::vector<Weight>& weights)>
      operation;
  bool same_bits_on_any_threads = true;
};

struct OperationResult {
  std::vector<at::Tensor> outputs, input_grads, weight_grads;
};

inline Weight trained_weight(const at::Tensor& values, at::ScalarType dtype,
                             at::Device device = at::kCPU) {
  return {leaf(values.to(device), dtype),
          at::zeros(values.sizes(), at::TensorOptions(at::kFloat).device(device))};
}
inline Weight frozen_weight(const at::Tensor& values, at::ScalarType dtype,
                            at::Device device = at::kCPU) {
  return {values.to(device, dtype), {}};
}

inline std::vector<at::Tensor> on_cpu(std::vector<at::Tensor> tensors) {
  for (at::Tensor& x : tensors)
    if (x.defined()) x = x.cpu();
  return tensors;
}

// Gradients of sum(outputs * fixed random numbers); outputs without a gradient take no part.
inline void backward_from(const std::vector<at::Tensor>& outputs, at::ScalarType rounded_to) {
  at::Tensor loss;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].requires_grad()) continue;
    const at::Tensor dy =
        random_tensor(outputs[i].sizes(), 900 + i, rounded_to).to(outputs[i].device());
    const at::Tensor part = (outputs[i] * dy.to(outputs[i].scalar_type())).sum();
    loss = loss.defined() ? loss + part : part;
  }
  if (loss.defined()) loss.backward();
}

inline OperationResult run_formula(const OperationCase& c, at::ScalarType dtype,
                                   at::ScalarType rounded_to) {
  std::vector<at::Tensor> inputs, weights;
  for (const auto& x : c.inputs) inputs.push_back(leaf(x.to(rounded_to), dtype));
  for (const auto& w : c.weights) weights.push_back(leaf(w.to(rounded_to), dtype));
  OperationResult out{c.formula(inputs, weights), {}, {}};
  backward_from(out.outputs, rounded_to);
  for (const auto& x : inputs) out.input_grads.push_back(x.grad());
  for (const auto& w : weights) out.weight_grads.push_back(w.grad());
  return out;
}

// The operation on `device`; the results are on the CPU.
inline OperationResult run_operation(const OperationCase& c, at::ScalarType dtype,
                                     bool train_inputs = true, bool train_weights = true,
                                     at::Device device = at::kCPU) {
  const PoisonUninitialized poison;
  std::vector<at::Tensor> inputs;
  std::vector<Weight> weights;
  for (const auto& x : c.inputs)
    inputs.push_back(leaf(x.to(device), dtype).requires_grad_(train_inputs));
  for (const auto& w : c.weights)
    weights.push_back(train_weights ? trained_weight(w, dtype, device)
                                    : frozen_weight(w, dtype, device));
  OperationResult out{c.operation(inputs, weights), {}, {}};
  backward_from(out.outputs, dtype);
  for (const auto& x : inputs) out.input_grads.push_back(x.grad());
  for (const auto& w : weights) {
    EXPECT_FALSE(w.value.grad().defined()) << "a weight's gradient went through autograd";
    out.weight_grads.push_back(w.grad);
  }
  return {on_cpu(out.outputs), on_cpu(out.input_grads), on_cpu(out.weight_grads)};
}

inline void expect_same(const std::string& name, const std::vector<at::Tensor>& got,
                        const std::vector<at::Tensor>& want, bool bits) {
  ASSERT_EQ(got.size(), want.size()) << name;
  for (size_t i = 0; i < got.size(); ++i) {
    const std::string part = name + " " + std::to_string(i);
    if (bits) {
      expect_equal(part, got[i], want[i]);
    } else {
      expect_rms(part, got[i], want[i], 1e-5);
    }
  }
}

// Forward and all gradients against fp64, and frozen parts, which change nothing in the others.
// Returns the results.
inline OperationResult check_results(const OperationCase& c, at::ScalarType dtype,
                                     at::Device device) {
  const OperationResult want = run_formula(c, at::kDouble, dtype);
  const OperationResult plain = run_formula(c, dtype, dtype);
  const OperationResult got = run_operation(c, dtype, true, true, device);
  EXPECT_EQ(got.outputs.size(), want.outputs.size());
  if (got.outputs.size() != want.outputs.size()) return got;
  for (size_t i = 0; i < want.outputs.size(); ++i) {
    EXPECT_EQ(got.outputs[i].scalar_type(), dtype);
    expect_close("output " + std::to_string(i), got.outputs[i], want.outputs[i], plain.outputs[i]);
  }
  for (size_t i = 0; i < want.input_grads.size(); ++i)
    expect_close("gradient of input " + std::to_string(i), got.input_grads[i], want.input_grads[i],
                 plain.input_grads[i]);
  for (size_t i = 0; i < want.weight_grads.size(); ++i)
    expect_close("gradient of weight " + std::to_string(i), got.weight_grads[i],
                 want.weight_grads[i], plain.weight_grads[i]);

  const bool bits = c.same_bits_on_any_threads;
  expect_same("frozen weights", run_operation(c, dtype, true, false, device).input_grads,
              got.input_grads, bits);
  if (!c.weights.empty())
    expect_same("inputs without gradient",
                run_operation(c, dtype, false, true, device).weight_grads, got.weight_grads, bits);
  const OperationResult frozen = run_operation(c, dtype, false, false, device);
  expect_same("all frozen", frozen.outputs, got.outputs, bits);
  for (const auto& y : frozen.outputs) EXPECT_FALSE(y.requires_grad());
  return got;
}

inline void check_operation(const OperationCase& c, at::ScalarType dtype) {
  SCOPED_TRACE(std::string("type ") + c10::toString(dtype));
  const OperationResult got = check_results(c, dtype, at::kCPU);
  const bool bits = c.same_bits_on_any_threads;
  const int threads = at::get_num_threads();
  at::set_num_threads(threads == 1 ? 3 : 1);
  const OperationResult again = run_operation(c, dtype);
  at::set_num_threads(threads);
  if (dtype != at::kFloat) return;  // other types are LibTorch's own reductions
  expect_same("other threads: output", again.outputs, got.outputs, bits);
  expect_same("other threads: gradient", again.input_grads, got.input_grads, bits);
  expect_same("other threads: weight gradient", again.weight_grads, got.weight_grads, bits);
}

// On a GPU, in both types: our kernels, twice with the same bits, then LibTorch's.
inline void check_on_gpu(const OperationCase& c) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const char* kernels : {"all", "none"}) {
      SCOPED_TRACE(std::string("kernels ") + kernels + ", type " + c10::toString(dtype));
      const CudaKernelsSetting setting(kernels);
      const OperationResult got = check_results(c, dtype, at::kCUDA);
      const OperationResult again = run_operation(c, dtype, true, true, at::kCUDA);
      expect_same("again: output", again.outputs, got.outputs, true);
      expect_same("again: gradient", again.input_grads, got.input_grads, true);
      expect_same("again: weight gradient", again.weight_grads, got.weight_grads, true);
    }
  }
}

}  // namespace halo::test
