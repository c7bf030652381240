// split_heads by the kernels of split_heads.cu.
#include "ATen/ATen.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/cuda/partial_sums.h"
#include "halo/kernels/rope/rope_forms.h"
#include "halo/kernels/rope/rope_launch.h"

namespace halo {
namespace {

const float* floats_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<float>() : nullptr;
}

const void* data_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr() : nullptr;
}

SplitHeadsLaunch launch_of(const at::Tensor& stacked, const HeadSplit& split,
                           const HeadFactors& factors) {
  return {.element = element_of(stacked),
          .rows = stacked.size(0),
          .heads = split.heads,
          .kv_heads = split.kv_heads,
          .head_dim = split.head_dim,
          .has_gate = split.has_gate,
          .eps = static_cast<float>(split.eps),
          .q_norm = data_of(factors.q_norm),
          .k_norm = data_of(factors.k_norm),
          .cos = floats_of(factors.cos),
          .sin = floats_of(factors.sin),
          .q_scale = floats_of(factors.q_scale),
          .stacked = data_of(stacked)};
}

bool is_aligned(const at::Tensor& x) {
  return reinterpret_cast<uintptr_t>(data_of(x)) % 16 == 0;
}

// The part of a norm's gradient that each block sums; undefined where it is not wanted.
at::Tensor partial_for(const at::Tensor& norm_grad, int64_t rows) {
  if (!norm_grad.defined()) return {};
  return at::empty({partial_blocks(rows), norm_grad.numel()}, norm_grad.options());
}

void add_partial(const at::Tensor& partial, const at::Tensor& norm_grad, void* stream) {
  if (!partial.defined()) return;
  launch_add_partial_sums(partial.const_data_ptr<float>(), partial.size(0), partial.size(1),
                          norm_grad.mutable_data_ptr<float>(), stream);
}

}  // namespace

bool has_split_heads_cuda_kernels(const at::Tensor& stacked, const HeadSplit& split,
                                  const HeadFactors& factors) {
  return has_cuda_kernels(CudaKernels::kSplitHeads, stacked) &&
         has_split_heads_kernel(split.head_dim) && is_aligned(stacked) &&
         is_aligned(factors.q_norm) && is_aligned(factors.k_norm);
}

Heads split_heads_cuda(const at::Tensor& stacked, const HeadSplit& split,
                       const HeadFactors& factors) {
  const DeviceStream stream(stacked);
  const int64_t rows = stacked.size(0), d = split.head_dim;
  Heads out;
  out.q = at::empty({rows, split.heads, d}, stacked.options());
  out.k = at::empty({rows, split.kv_heads, d}, stacked.options());
  out.v = at::empty_like(out.k);
  if (split.has_gate) out.gate = at::empty({rows, split.heads * d}, stacked.options());
  SplitHeadsLaunch args = launch_of(stacked, split, factors);
  args.q = out.q.mutable_data_ptr();
  args.k = out.k.mutable_data_ptr();
  args.v = out.v.mutable_data_ptr();
  if (split.has_gate) args.gate = out.gate.mutable_data_ptr();
  launch_split_heads(args, stream.handle());
  return out;
}

at::Tensor split_heads_store_cuda(const at::Tensor& stacked, const HeadSplit& split,
                                  const HeadFactors& factors, const HeadStore& store) {
  const DeviceStream stream(stacked);
  const at::Tensor q = at::empty({stacked.size(0), split.heads, split.head_dim}, stacked.options());
  SplitHeadsLaunch args = launch_of(stacked, split, factors);
  args.q = q.mutable_data_ptr();
  args.k = store.keys.mutable_data_ptr();
  args.v = store.values.mutable_data_ptr();
  args.kv_rows = store.rows.const_data_ptr<int64_t>();
  if (store.is_int8()) {
    args.k_scales = store.key_scales.mutable_data_ptr<float>();
    args.v_scales = store.value_scales.mutable_data_ptr<float>();
    args.block_size = store.keys.size(1);
  }
  launch_split_heads(args, stream.handle());
  return q;
}

at::Tensor split_heads_cuda_backward(const Heads& grads, const at::Tensor& stacked,
                                     const HeadSplit& split, const HeadFactors& factors,
                                     const at::Tensor& q_norm_grad, const at::Tensor& k_norm_grad) {
  const DeviceStream stream(stacked);
  const int64_t rows = stacked.size(0);
  at::Tensor out = at::empty_like(stacked);
  const at::Tensor partial_q = partial_for(q_norm_grad, rows);
  const at::Tensor partial_k = partial_for(k_norm_grad, rows);
  SplitHeadsLaunch args = launch_of(stacked, split, factors);
  // The kernel reads them: one struct serves both passes.
  args.q = const_cast<void*>(data_of(grads.q));
  args.k = const_cast<void*>(data_of(grads.k));
  args.v = const_cast<void*>(data_of(grads.v));
  args.gate = const_cast<void*>(data_of(grads.gate));
  args.d_stacked = out.mutable_data_ptr();
  if (partial_q.defined()) args.partial_q = partial_q.mutable_data_ptr<float>();
  if (partial_k.defined()) args.partial_k = partial_k.mutable_data_ptr<float>();
  launch_split_heads(args, stream.handle());
  add_partial(partial_q, q_norm_grad, stream.handle());
  add_partial(partial_k, k_norm_grad, stream.handle());
  return out;
}

}  // namespace halo
