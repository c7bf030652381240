// Lightning attention as passes of our own kernels on a GPU (docs/math/lightning.md, section 2).

#include <array>
#include <limits>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/lightning/lightning_forms.h"

namespace halo {
namespace {

// Tokens are counted in 32 bits, a chunk past the last one.
constexpr int64_t kMostTokens = std::numeric_limits<int32_t>::max() - 1024;

// x with rows that the kernels can read where they are: whole rows, 16-byte steps.
at::Tensor with_plain_rows(const at::Tensor& x) {
  const int64_t unit = 16 / x.element_size();
  const auto plain = [&](int64_t dimension) {
    return x.size(dimension) == 1 || (x.stride(dimension) > 0 && x.stride(dimension) % unit == 0);
  };
  const bool readable = x.stride(2) == 1 && plain(0) && plain(1) &&
                        reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
  return readable ? x : x.clone(at::MemoryFormat::Contiguous);
}

// x: of with_plain_rows.
LightningRows rows_of(const at::Tensor& x, int64_t heads) {
  const int64_t own_heads = x.size(1), head_size = x.size(2);
  // The stride of a dimension of size one means nothing.
  const int64_t head_stride = own_heads == 1 ? head_size : x.stride(1);
  const int64_t token_stride = x.size(0) == 1 ? own_heads * head_size : x.stride(0);
  return {x.const_data_ptr(), token_stride, head_stride, static_cast<int32_t>(heads / own_heads)};
}

LightningShape shape_of(const LightningArgs& args, const Sequences& sequences) {
  HALO_CHECK(sequences.num_tokens() <= kMostTokens, "lightning: {} tokens in one batch; {} fit",
             sequences.num_tokens(), kMostTokens);
  HALO_CHECK(sequences.offsets_i32().device() == args.q.device(),
             "lightning: the sequences' offsets are not on the device of q");
  return {.tokens = sequences.num_tokens(),
          .sequences = sequences.count(),
          .max_length = sequences.max_length(),
          .head_size = args.q.size(2),
          .offsets = sequences.offsets_i32().const_data_ptr<int32_t>(),
          .slopes = args.slopes,
          .scale = args.scale};
}

bool may_have_empty_sequence(const Sequences& sequences) {
  if (!sequences.known_to_host()) return true;
  for (int64_t s = 0; s < sequences.count(); ++s)
    if (sequences.length(s) == 0) return true;
  return false;
}

// What the kernels write a pass's last states into: they pass over empty sequences, whose states
// stay as they were.
at::Tensor last_states(const at::Tensor& first, const LightningArgs& args,
                       const Sequences& sequences) {
  const int64_t d = args.q.size(2);
  const auto options = args.q.options().dtype(at::kFloat);
  const std::array<int64_t, 4> shape{sequences.count(), args.q.size(1), d, d};
  if (!may_have_empty_sequence(sequences)) return at::empty(shape, options);
  return first.defined() ? first.clone(at::MemoryFormat::Contiguous) : at::zeros(shape, options);
}

const float* floats(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<float>() : nullptr;
}

// dy [N, H, D] per query head -> [N, G, D], summed over each group.
at::Tensor sum_groups(const at::Tensor& dy, int64_t groups) {
  if (dy.size(1) == groups) return dy;
  return dy.view({dy.size(0), groups, -1, dy.size(2)}).sum(2);
}

}  // namespace

bool has_lightning_kernels(int64_t head_size) {
  return runs_cuda_kernels(CudaKernels::kLightning) && (head_size == 64 || head_size == 128);
}

bool has_lightning_cuda(const LightningArgs& args) {
  const int64_t d = args.q.size(2);
  return !args.log_decay.defined() && has_cuda_kernels(CudaKernels::kLightning, args.q) &&
         args.v.size(2) == d && has_lightning_kernels(d);
}

LightningKernel lightning_kernel_for(const at::Tensor& q) {
  if (q.scalar_type() == at::kFloat) return LightningKernel::kRecurrent;
  return compute_capability(q) == 9 ? LightningKernel::kWgmma : LightningKernel::kMma;
}

LightningResult lightning_cuda(const LightningArgs& args, const Sequences& sequences,
                               LightningKernel kernel) {
  const int64_t heads = args.q.size(1);
  const at::Tensor q = with_plain_rows(args.q), k = with_plain_rows(args.k),
                   v = with_plain_rows(args.v);
  const at::Tensor initial = args.state.defined() ? args.state.contiguous() : at::Tensor();
  LightningResult out{at::empty(args.q.sizes(), args.q.options(), at::MemoryFormat::Contiguous),
                      last_states(initial, args, sequences)};
  const LightningPass pass{.q = rows_of(q, heads),
                           .k = rows_of(k, heads),
                           .v = rows_of(v, heads),
                           .o = out.o.mutable_data_ptr(),
                           .initial = floats(initial),
                           .final = out.state.mutable_data_ptr<float>()};
  const DeviceStream stream(q);
  launch_lightning({&pass, 1}, shape_of(args, sequences), kernel, stream.handle());
  return out;
}

LightningGradients lightning_cuda_backward(const LightningArgs& args, const Sequences& sequences,
                                           const at::Tensor& d_o, const at::Tensor& d_state,
                                           LightningKernel kernel) {
  const int64_t heads = args.q.size(1), groups = args.k.size(1);
  const at::Tensor q = with_plain_rows(args.q), k = with_plain_rows(args.k),
                   v = with_plain_rows(args.v),
                   d = d_o.defined() ? with_plain_rows(d_o) : at::zeros(q.sizes(), q.options());
  const at::Tensor initial = args.state.defined() ? args.state.contiguous() : at::Tensor();
  const at::Tensor d_final = d_state.defined() ? d_state.contiguous() : at::Tensor();
  const auto gradient = [&] {
    return at::empty(d.sizes(), q.options(), at::MemoryFormat::Contiguous);
  };
  const at::Tensor d_q = gradient(), d_k = gradient(), d_v = gradient();
  LightningGradients out{.state = last_states(d_final, args, sequences)};
  const LightningRows q_rows = rows_of(q, heads), k_rows = rows_of(k, heads),
                      v_rows = rows_of(v, heads), d_rows = rows_of(d, heads);

  const DeviceStream stream(q);
  LightningShape shape = shape_of(args, sequences);
  const LightningPass forward{.q = d_rows,
                              .k = v_rows,
                              .v = k_rows,
                              .o = d_q.mutable_data_ptr(),
                              .initial = floats(initial),
                              .initial_transposed = true};
  launch_lightning({&forward, 1}, shape, kernel, stream.handle());
  shape.reverse = true;
  const LightningPass reverse[] = {{.q = v_rows,
                                    .k = d_rows,
                                    .v = q_rows,
                                    .o = d_k.mutable_data_ptr(),
                                    .initial = floats(d_final),
                                    .initial_transposed = true},
                                   {.q = k_rows,
                                    .k = q_rows,
                                    .v = d_rows,
                                    .o = d_v.mutable_data_ptr(),
                                    .initial = floats(d_final),
                                    .final = out.state.mutable_data_ptr<float>()}};
  launch_lightning(reverse, shape, kernel, stream.handle());
  out.q = d_q;
  out.k = sum_groups(d_k, groups);
  out.v = sum_groups(d_v, groups);
  return out;
}

}  // namespace halo
