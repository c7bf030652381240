// split_heads: checks, dispatch and the autograd node.
#include "halo/kernels/rope/rope.h"

#include "ATen/ATen.h"
#include "halo/kernels/common/operation.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/rope/rope_forms.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Heads forward_of(const at::Tensor& stacked, const HeadSplit& split, const HeadFactors& factors) {
  auto form = split_heads_aten;
  if (has_cpu_form(stacked)) form = split_heads_cpu;
  if (has_split_heads_cuda_kernels(stacked, split, factors)) form = split_heads_cuda;
  return form(stacked, split, factors);
}

at::Tensor backward_of(const Heads& grads, const at::Tensor& stacked, const HeadSplit& split,
                       const HeadFactors& factors, const at::Tensor& q_norm_grad,
                       const at::Tensor& k_norm_grad) {
  auto form = split_heads_aten_backward;
  if (has_cpu_form(stacked)) form = split_heads_cpu_backward;
  if (has_split_heads_cuda_kernels(stacked, split, factors)) form = split_heads_cuda_backward;
  return form(grads, stacked, split, factors, q_norm_grad, k_norm_grad);
}

// What backward needs beside the saved tensors.
struct SplitState : torch::CustomClassHolder {
  HeadSplit split;
  at::Tensor q_norm_grad, k_norm_grad;
};

struct SplitHeadsNode : torch::autograd::Function<SplitHeadsNode> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& stacked,
                               const std::optional<at::Tensor>& /*q_norm*/,
                               const std::optional<at::Tensor>& /*k_norm*/,
                               const HeadFactors& factors,
                               const c10::intrusive_ptr<SplitState>& state) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward(
        {stacked, factors.q_norm, factors.k_norm, factors.cos, factors.sin, factors.q_scale});
    ctx->saved_data["state"] = at::IValue::make_capsule(state);
    Heads heads = forward_of(stacked, state->split, factors);
    variable_list out = {heads.q, heads.k, heads.v};
    if (state->split.has_gate) out.push_back(heads.gate);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto state =
        c10::static_intrusive_pointer_cast<SplitState>(ctx->saved_data["state"].toCapsule());
    const auto contiguous = [&grads](size_t i) {
      return i < grads.size() && grads[i].defined() ? grads[i].contiguous() : at::Tensor();
    };
    const Heads heads{contiguous(0), contiguous(1), contiguous(2), contiguous(3)};
    const HeadFactors factors{saved[1], saved[2], saved[3], saved[4], saved[5]};
    return {
        backward_of(heads, saved[0], state->split, factors, state->q_norm_grad, state->k_norm_grad),
        {},
        {},
        {},
        {}};
  }
};

void check(const at::Tensor& stacked, const HeadSplit& split, const Weight& q_norm,
           const Weight& k_norm, const HeadFactors& factors) {
  const int64_t d = split.head_dim;
  const int64_t columns = (split.heads * (split.has_gate ? 2 : 1) + 2 * split.kv_heads) * d;
  HALO_CHECK(d > 0 && d % 2 == 0, "split_heads: the head size must be even, got {}", d);
  HALO_CHECK(stacked.dim() == 2 && stacked.size(1) == columns,
             "split_heads: the stacked projection must be [N, {}]", columns);
  const int64_t n = stacked.size(0);
  if (q_norm.defined()) check_weight("split_heads", q_norm, {d}, stacked);
  if (k_norm.defined()) check_weight("split_heads", k_norm, {d}, stacked);
  HALO_CHECK(!factors.cos.defined() || (factors.cos.sizes() == at::IntArrayRef({n, d / 2}) &&
                                        factors.sin.sizes() == factors.cos.sizes() &&
                                        factors.cos.scalar_type() == at::kFloat &&
                                        factors.sin.scalar_type() == at::kFloat),
             "split_heads: RoPE tables must be [N, d/2] fp32");
  HALO_CHECK(!factors.q_scale.defined() || (factors.q_scale.sizes() == at::IntArrayRef({n}) &&
                                            factors.q_scale.scalar_type() == at::kFloat),
             "split_heads: q_scale must be [N] fp32");
}

HeadFactors factors_of(const at::Tensor& stacked, const HeadSplit& split, const Weight& q_norm,
                       const Weight& k_norm, const std::optional<RopeTables>& rope,
                       const std::optional<at::Tensor>& q_scale) {
  HeadFactors factors{q_norm.value, k_norm.value, {}, {}, {}};
  if (rope) {
    factors.cos = rope->cos.contiguous();
    factors.sin = rope->sin.contiguous();
  }
  if (q_scale) factors.q_scale = q_scale->contiguous();
  check(stacked, split, q_norm, k_norm, factors);
  return factors;
}

}  // namespace

Heads split_heads(const at::Tensor& stacked, const HeadSplit& split, const Weight& q_norm,
                  const Weight& k_norm, const std::optional<RopeTables>& rope,
                  const std::optional<at::Tensor>& q_scale) {
  const HeadFactors factors = factors_of(stacked, split, q_norm, k_norm, rope, q_scale);
  const at::Tensor rows = stacked.contiguous();
  if (!records({rows, q_norm.value, k_norm.value})) return forward_of(rows, split, factors);
  auto state = c10::make_intrusive<SplitState>();
  state->split = split;
  state->q_norm_grad = q_norm.grad;
  state->k_norm_grad = k_norm.grad;
  const variable_list out = SplitHeadsNode::apply(rows, if_defined(q_norm.value),
                                                  if_defined(k_norm.value), factors, state);
  return {out[0], out[1], out[2], split.has_gate ? out[3] : at::Tensor()};
}

at::Tensor split_heads_store(const at::Tensor& stacked, const HeadSplit& split,
                             const Weight& q_norm, const Weight& k_norm,
                             const std::optional<RopeTables>& rope,
                             const std::optional<at::Tensor>& q_scale, const HeadStore& store) {
  const at::NoGradGuard no_grad;
  const HeadFactors factors = factors_of(stacked, split, q_norm, k_norm, rope, q_scale);
  HALO_CHECK(are_blocks(store) && store.keys.size(2) == split.kv_heads &&
                 store.keys.size(3) == split.head_dim &&
                 (store.is_int8() || store.keys.scalar_type() == stacked.scalar_type()),
             "split_heads: the store must be contiguous [blocks, tokens, {}, {}] of the "
             "projection's type, or int8 with scales [blocks, {}, tokens]",
             split.kv_heads, split.head_dim, split.kv_heads);
  HALO_CHECK(store.rows.sizes() == at::IntArrayRef({stacked.size(0)}) &&
                 store.rows.scalar_type() == at::kLong,
             "split_heads: the rows to store at must be int64 [{}]", stacked.size(0));
  const at::Tensor rows = stacked.contiguous();
  if (has_split_heads_cuda_kernels(rows, split, factors) &&
      (!store.is_int8() || runs_cuda_kernels(CudaKernels::kInt8Keys))) {
    return split_heads_store_cuda(rows, split, factors, store);
  }
  const Heads heads = forward_of(rows, split, factors);
  const at::Tensor here = store.rows.ge(0).nonzero().flatten();
  const at::Tensor to = store.rows.index_select(0, here);
  store_tokens(store.keys, store.key_scales, to, heads.k.index_select(0, here));
  store_tokens(store.values, store.value_scales, to, heads.v.index_select(0, here));
  return heads.q;
}

}  // namespace halo
