// Causal attention of fresh sequences through LibTorch's fused kernels. On the CPU one call for
// each run of equally long sequences, in fp32; on CUDA one call for the packed batch.

#include "ATen/ATen.h"
#include "halo/kernels/attention/attention_forms.h"

namespace halo {
namespace {

constexpr int64_t kCausalFromTopLeft = 1;  // the CUDA kernel's name for our mask

// Sequences first .. first+count-1 are all `length` tokens long and begin at token `begin`.
struct Run {
  int64_t count, length, begin;
};

std::vector<Run> equal_runs(const Sequences& sequences) {
  std::vector<Run> runs;
  for (int64_t s = 0; s < sequences.count(); ++s) {
    const int64_t length = sequences.length(s);
    if (length == 0) continue;
    if (!runs.empty() && runs.back().length == length) {
      ++runs.back().count;
    } else {
      runs.push_back({1, length, sequences.offsets[s]});
    }
  }
  return runs;
}

// x [N, G, d] -> [N, H, d], head h a copy of h / (H/G).
at::Tensor expand_heads(const at::Tensor& x, int64_t heads) {
  const int64_t groups = x.size(1);
  if (groups == heads) return x.contiguous();
  return x.unsqueeze(2)
      .expand({x.size(0), groups, heads / groups, x.size(2)})
      .reshape({x.size(0), heads, x.size(2)});
}

// The transpose of expand_heads, into `like`'s shape and type.
at::Tensor sum_heads(const at::Tensor& x, const at::Tensor& like) {
  const int64_t heads = x.size(1), groups = like.size(1);
  if (groups == heads) return x.to(like.scalar_type());
  return x.view({x.size(0), groups, heads / groups, x.size(2)})
      .sum(2, /*keepdim=*/false, at::kFloat)
      .to(like.scalar_type());
}

// The run's tokens of x [N, H, d] as [B, H, L, d], a view.
at::Tensor batch(const at::Tensor& x, const Run& run) {
  return x.narrow(0, run.begin, run.count * run.length)
      .view({run.count, run.length, x.size(1), x.size(2)})
      .transpose(1, 2);
}

AttentionForward forward_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             double scale, const Sequences& sequences) {
  AttentionForward out;
  out.o = at::empty_like(q, at::MemoryFormat::Contiguous);
  for (const Run& run : equal_runs(sequences)) {
    auto [o, statistics] = at::_scaled_dot_product_flash_attention_for_cpu(
        batch(q, run), batch(k, run), batch(v, run), /*dropout_p=*/0, /*is_causal=*/true, {},
        scale);
    batch(out.o, run).copy_(o);
    out.statistics.push_back(statistics);
  }
  return out;
}

AttentionGradients backward_cpu(const at::Tensor& d_o, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v, const AttentionForward& forward, double scale,
                                const Sequences& sequences) {
  AttentionGradients out{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  size_t i = 0;
  for (const Run& run : equal_runs(sequences)) {
    auto [d_q, d_k, d_v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        batch(d_o, run), batch(q, run), batch(k, run), batch(v, run), batch(forward.o, run),
        forward.statistics[i++], /*dropout_p=*/0, /*is_causal=*/true, {}, scale);
    batch(out.q, run).copy_(d_q);
    batch(out.k, run).copy_(d_k);
    batch(out.v, run).copy_(d_v);
  }
  return out;
}

AttentionForward forward_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              double scale, const Sequences& sequences) {
  auto [o, statistics, seed, offset, max_q, max_k] = at::_efficient_attention_forward(
      q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), /*bias=*/{}, sequences.offsets_i32,
      sequences.offsets_i32, sequences.max_length, sequences.max_length, /*dropout_p=*/0,
      kCausalFromTopLeft, /*compute_log_sumexp=*/true, scale);
  return {o.squeeze(0), {statistics, seed, offset}};
}

AttentionGradients backward_cuda(const at::Tensor& d_o, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const AttentionForward& forward, double scale,
                                 const Sequences& sequences) {
  // One split of the keys: with more, dq would be summed in no fixed order.
  auto [d_q, d_k, d_v, d_bias] = at::_efficient_attention_backward(
      d_o.unsqueeze(0), q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), /*bias=*/{},
      forward.o.unsqueeze(0), sequences.offsets_i32, sequences.offsets_i32, sequences.max_length,
      sequences.max_length, forward.statistics[0], /*dropout_p=*/0, forward.statistics[1],
      forward.statistics[2], kCausalFromTopLeft, /*bias_requires_grad=*/false, scale,
      /*num_splits_key=*/1);
  return {d_q.squeeze(0), d_k.squeeze(0), d_v.squeeze(0)};
}

// The type the kernels compute in: the CPU's bf16 kernels are slower than its fp32 ones.
at::Tensor compute_type(const at::Tensor& x) {
  return x.is_cpu() ? x.to(at::kFloat).contiguous() : x.contiguous();
}

}  // namespace

AttentionForward causal_attention_forward(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, double scale,
                                          const Sequences& sequences) {
  if (sequences.num_tokens() == 0) return {at::empty_like(q, at::MemoryFormat::Contiguous), {}};
  const int64_t heads = q.size(1);
  auto out = (q.is_cpu() ? forward_cpu : forward_cuda)(
      compute_type(q), expand_heads(compute_type(k), heads), expand_heads(compute_type(v), heads),
      scale, sequences);
  out.o = out.o.to(q.scalar_type());
  return out;
}

AttentionGradients causal_attention_backward(const at::Tensor& d_o, const at::Tensor& q,
                                             const at::Tensor& k, const at::Tensor& v,
                                             const AttentionForward& forward, double scale,
                                             const Sequences& sequences) {
  if (sequences.num_tokens() == 0) {
    return {at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  }
  const int64_t heads = q.size(1);
  auto d = (q.is_cpu() ? backward_cpu : backward_cuda)(
      compute_type(d_o), compute_type(q), expand_heads(compute_type(k), heads),
      expand_heads(compute_type(v), heads), {compute_type(forward.o), forward.statistics}, scale,
      sequences);
  return {d.q.to(q.scalar_type()), sum_heads(d.k, k), sum_heads(d.v, v)};
}

}  // namespace halo
