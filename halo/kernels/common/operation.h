// Small things that the operations' checks and autograd nodes share.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/core/GradMode.h>

#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>

#include "halo/base/check.h"
#include "halo/kernels/common/weight.h"

namespace halo {

// How a tensor that may be missing goes into Function::apply, which refuses an undefined Tensor.
inline std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

// What a node keeps for backward that is neither a tensor nor a number.
template <class T>
struct Kept : torch::CustomClassHolder {
  explicit Kept(T value) : value(std::move(value)) {}
  T value;
};
template <class T>
c10::IValue keep(T value) {
  return c10::IValue::make_capsule(c10::make_intrusive<Kept<T>>(std::move(value)));
}
template <class T>
T kept(const c10::IValue& of) {
  return static_cast<const Kept<T>&>(*of.toCapsule()).value;
}

// Whether a call must be recorded for backward.
inline bool records(std::initializer_list<at::Tensor> inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& input : inputs)
    if (input.defined() && input.requires_grad()) return true;
  return false;
}

// The types and places for which the operations have a fused CPU form.
inline bool has_cpu_form(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat;
}

inline void check_weight(std::string_view operation, const Weight& w, at::IntArrayRef shape,
                         const at::Tensor& x) {
  HALO_CHECK(w.value.sizes() == shape && w.value.is_contiguous(),
             "{}: a contiguous weight of {} elements is expected, got {}", operation,
             c10::multiply_integers(shape), w.value.numel());
  HALO_CHECK(w.value.scalar_type() == x.scalar_type() && w.value.device() == x.device() &&
                 !w.scale.defined(),
             "{}: the weight must have the input's type and device", operation);
  HALO_CHECK(!w.trained() || (w.grad.sizes() == shape && w.grad.scalar_type() == at::kFloat),
             "{}: the weight's gradient must be fp32 of the weight's shape", operation);
}

// A matrix [O, I] that x [N, I] is multiplied with: of x's type, or int8 with its scales.
inline void check_matrix(std::string_view operation, const Weight& w, const at::Tensor& x) {
  if (!w.scale.defined()) return check_weight(operation, w, w.value.sizes(), x);
  HALO_CHECK(w.value.scalar_type() == at::kChar && w.value.is_contiguous() &&
                 w.value.device() == x.device() && !w.trained(),
             "{}: a weight with scales must be contiguous int8 on the input's device, and frozen",
             operation);
  HALO_CHECK(w.scale.sizes() == at::IntArrayRef({w.value.size(0)}) && w.scale.is_contiguous() &&
                 w.scale.scalar_type() == at::kFloat && w.scale.device() == x.device(),
             "{}: the scales of a weight in int8 must be {} contiguous fp32 values", operation,
             w.value.size(0));
}

}  // namespace halo
