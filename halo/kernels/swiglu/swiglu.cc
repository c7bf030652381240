// SwiGLU's elementwise part: dispatch, the LibTorch form, and the node.
//   y = silu(g) u,  dg = dy u sigma(g) (1 + g (1 - sigma(g))),  du = dy silu(g)
#include "halo/kernels/swiglu/swiglu.h"

#include "ATen/ATen.h"
#include "halo/kernels/common/operation.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/swiglu/swiglu_forms.h"
#include "halo/kernels/swiglu/swiglu_launch.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// `out`: the result or, given dy, the gradient of gate_up.
at::Tensor run_cuda(const at::Tensor& gate_up, const at::Tensor& dy, const at::Tensor& out) {
  const DeviceStream stream(gate_up);
  launch_swiglu({.element = element_of(gate_up),
                 .rows = gate_up.size(0),
                 .columns = gate_up.size(1) / 2,
                 .gate_up = gate_up.const_data_ptr(),
                 .dy = dy.defined() ? dy.const_data_ptr() : nullptr,
                 .out = out.mutable_data_ptr()},
                stream.handle());
  return out;
}

at::Tensor forward_of(const at::Tensor& gate_up) {
  if (has_cpu_form(gate_up)) return swiglu_forward_cpu(gate_up);
  if (has_cuda_kernels(CudaKernels::kSwiglu, gate_up)) {
    return run_cuda(gate_up, {},
                    at::empty({gate_up.size(0), gate_up.size(1) / 2}, gate_up.options()));
  }
  const auto halves = gate_up.chunk(2, 1);
  return at::silu(halves[0]).mul_(halves[1]);
}

at::Tensor backward_of(const at::Tensor& dy, const at::Tensor& gate_up) {
  if (has_cpu_form(gate_up)) return swiglu_backward_cpu(dy, gate_up);
  if (has_cuda_kernels(CudaKernels::kSwiglu, gate_up)) {
    return run_cuda(gate_up, dy, at::empty_like(gate_up));
  }
  const auto halves = gate_up.chunk(2, 1);
  at::Tensor out = at::empty_like(gate_up);
  auto gradients = out.chunk(2, 1);
  at::silu_backward_out(gradients[0], dy * halves[1], halves[0]);
  at::mul_out(gradients[1], dy, at::silu(halves[0]));
  return out;
}

struct SwigluNode : torch::autograd::Function<SwigluNode> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    return forward_of(gate_up);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {backward_of(grads[0].contiguous(), ctx->get_saved_variables()[0])};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up) {
  HALO_CHECK(gate_up.dim() == 2 && gate_up.size(1) % 2 == 0, "swiglu: the input must be [N, 2F]");
  const at::Tensor rows = gate_up.contiguous();
  return records({rows}) ? SwigluNode::apply(rows) : forward_of(rows);
}

}  // namespace halo
