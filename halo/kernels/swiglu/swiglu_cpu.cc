// SwiGLU's elementwise part on the CPU: one pass over every row.
#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/cpu/row_chunks.h"
#include "halo/kernels/swiglu/swiglu_forms.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/swiglu/swiglu_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: this is read once a target.
#include "halo/kernels/cpu/columns-inl.h"

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

void swiglu_row(const float* gate_up, int64_t f, float* y) {
  for_columns(f, [&](auto d, int64_t c) HWY_ATTR {
    const auto g = hn::LoadU(d, gate_up + c);
    const auto u = hn::LoadU(d, gate_up + f + c);
    hn::StoreU(hn::Mul(hn::Mul(g, sigmoid(d, g)), u), d, y + c);
  });
}

void swiglu_backward_row(const float* dy, const float* gate_up, int64_t f, float* d_gate_up) {
  for_columns(f, [&](auto d, int64_t c) HWY_ATTR {
    const auto one = hn::Set(d, 1.0f);
    const auto g = hn::LoadU(d, gate_up + c);
    const auto u = hn::LoadU(d, gate_up + f + c);
    const auto open = sigmoid(d, g);
    const auto passed = hn::Mul(hn::LoadU(d, dy + c), open);
    const auto slope = hn::MulAdd(g, hn::Sub(one, open), one);
    hn::StoreU(hn::Mul(hn::Mul(passed, u), slope), d, d_gate_up + c);
    hn::StoreU(hn::Mul(passed, g), d, d_gate_up + f + c);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {

HWY_EXPORT(swiglu_row);
HWY_EXPORT(swiglu_backward_row);

at::Tensor swiglu_forward_cpu(const at::Tensor& gate_up) {
  const int64_t f = gate_up.size(1) / 2;
  at::Tensor out = at::empty({gate_up.size(0), f}, gate_up.options());
  const float* from = gate_up.const_data_ptr<float>();
  float* y = out.mutable_data_ptr<float>();
  at::parallel_for(0, gate_up.size(0), row_grain(f), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      HWY_DYNAMIC_DISPATCH(swiglu_row)(from + n * 2 * f, f, y + n * f);
  });
  return out;
}

at::Tensor swiglu_backward_cpu(const at::Tensor& dy, const at::Tensor& gate_up) {
  const int64_t f = dy.size(1);
  at::Tensor out = at::empty_like(gate_up);
  const float* from = gate_up.const_data_ptr<float>();
  const float* grad = dy.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, gate_up.size(0), row_grain(f), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      HWY_DYNAMIC_DISPATCH(swiglu_backward_row)(grad + n * f, from + n * 2 * f, f, to + n * 2 * f);
  });
  return out;
}

}  // namespace halo
#endif
