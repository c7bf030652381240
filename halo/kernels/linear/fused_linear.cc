// Checks, the composed form, and the choice of the kernel.
#include "halo/kernels/linear/fused_linear.h"

#include <algorithm>
#include <vector>

#include "ATen/ATen.h"
#include "halo/kernels/common/operation.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/gate/gate.h"
#include "halo/kernels/linear/fused_linear_launch.h"
#include "halo/kernels/linear/linear.h"
#include "halo/kernels/rms_norm/rms_norm.h"
#include "halo/kernels/swiglu/swiglu.h"

namespace halo {
namespace {

bool is_aligned(const at::Tensor& x) {
  return !x.defined() || reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

const void* data_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr() : nullptr;
}

int64_t outputs_of(const FusedLinear& args) {
  return args.w.value.size(0) / (args.swiglu ? 2 : 1);
}

void check(const at::Tensor& x, const FusedLinear& args) {
  HALO_CHECK(x.dim() == 2 && args.w.defined() && args.w.value.dim() == 2 &&
                 args.w.value.size(1) == x.size(1),
             "fused_linear: x must be [N, I] and the weight [O, I]");
  check_matrix("fused_linear", args.w, x);
  HALO_CHECK(!args.swiglu || (args.w.value.size(0) % 2 == 0 && !args.bias.defined()),
             "fused_linear: SwiGLU wants an even number of weight rows and no bias");
  if (args.norm.defined()) check_weight("fused_linear", args.norm, {x.size(1)}, x);
  if (args.bias.defined()) check_weight("fused_linear", args.bias, {outputs_of(args)}, x);
  HALO_CHECK(!args.gate.defined() || (args.gate.sizes() == x.sizes() && args.gate.stride(1) == 1 &&
                                      args.gate.scalar_type() == x.scalar_type()),
             "fused_linear: the gate must have x's shape and type");
  HALO_CHECK(!args.residual.defined() ||
                 (args.residual.sizes() == at::IntArrayRef({x.size(0), outputs_of(args)}) &&
                  args.residual.scalar_type() == x.scalar_type()),
             "fused_linear: the residual must be [{}, {}] of x's type", x.size(0),
             outputs_of(args));
}

bool has_kernel(const at::Tensor& x, const FusedLinear& args) {
  const auto kernels =
      args.w.scale.defined() ? CudaKernels::kFusedLinearInt8 : CudaKernels::kFusedLinear;
  const int64_t rows = x.size(0), inputs = x.size(1);
  return x.scalar_type() == at::kBFloat16 && has_cuda_kernels(kernels, x) &&
         compute_capability(x) >= 9 && rows <= kMostFusedRows && inputs % kFusedInputs == 0 &&
         outputs_of(args) % kFusedOutputs == 0 &&
         rows * (inputs + kFusedInputs) * x.element_size() <= kMostFusedBytes && is_aligned(x) &&
         is_aligned(args.w.value) && is_aligned(args.norm.value) && is_aligned(args.gate) &&
         (!args.gate.defined() || args.gate.stride(0) % 8 == 0);
}

at::Tensor run_kernel(const at::Tensor& x, const FusedLinear& args) {
  const DeviceStream stream(x);
  const int64_t outputs = outputs_of(args);
  const at::Tensor residual = args.residual.defined() ? args.residual.contiguous() : args.residual;
  const at::Tensor y =
      at::empty({x.size(0), outputs}, x.options().dtype(args.wide ? at::kFloat : at::kBFloat16));
  launch_fused_linear({.rows = x.size(0),
                       .inputs = x.size(1),
                       .outputs = outputs,
                       .eps = static_cast<float>(args.eps),
                       .x = data_of(x),
                       .norm = data_of(args.norm.value),
                       .gate = data_of(args.gate),
                       .gate_stride = args.gate.defined() ? args.gate.stride(0) : 0,
                       .w = data_of(args.w.value),
                       .scale = static_cast<const float*>(data_of(args.w.scale)),
                       .bias = data_of(args.bias.value),
                       .residual = data_of(residual),
                       .swiglu = args.swiglu,
                       .wide = args.wide,
                       .y = y.mutable_data_ptr()},
                      stream.handle());
  return y;
}

FusedLinear narrowed(FusedLinear args, int64_t begin, int64_t count) {
  if (args.gate.defined()) args.gate = args.gate.narrow(0, begin, count);
  if (args.residual.defined()) args.residual = args.residual.narrow(0, begin, count);
  return args;
}

// More rows than the kernel takes at once, of which each call reads the weights.
at::Tensor run_kernel_in_parts(const at::Tensor& x, const FusedLinear& args) {
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < x.size(0); begin += kMostFusedRows) {
    const int64_t count = std::min(kMostFusedRows, x.size(0) - begin);
    parts.push_back(run_kernel(x.narrow(0, begin, count), narrowed(args, begin, count)));
  }
  return at::cat(parts);
}

at::Tensor composed(const at::Tensor& x, const FusedLinear& args, Kernels kernels) {
  at::Tensor z = x;
  if (args.gate.defined()) {
    z = norm_gate(x, args.norm, args.eps, args.gate.contiguous());
  } else if (args.norm.defined()) {
    z = rms_norm(x, args.norm, args.eps);
  }
  at::Tensor y = linear(z, args.w, args.bias, kernels);
  if (args.swiglu) y = swiglu(y);
  if (args.residual.defined()) y = y + args.residual;
  return args.wide ? y.to(at::kFloat) : y;
}

}  // namespace

at::Tensor fused_linear(const at::Tensor& x, const FusedLinear& args, Kernels kernels) {
  const at::NoGradGuard no_grad;
  check(x, args);
  const at::Tensor rows = x.contiguous();
  if (has_kernel(rows, args)) return run_kernel(rows, args);
  // Composed, int8 is first made bf16: 5 bytes moved for each that a call of the kernel reads.
  constexpr int64_t kMostPartRows = 4 * kMostFusedRows;
  const int64_t first = std::min(kMostFusedRows, rows.size(0));
  if (args.w.scale.defined() && rows.size(0) <= kMostPartRows &&
      has_kernel(rows.narrow(0, 0, first), narrowed(args, 0, first))) {
    return run_kernel_in_parts(rows, args);
  }
  return composed(rows, args, kernels);
}

}  // namespace halo
