// Causal attention of fresh sequences on a GPU by LibTorch's fused kernels.

#include <limits>
#include <optional>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/Context.h"
#include "halo/base/check.h"
#include "halo/kernels/attention/attention_forms.h"
#include "halo/kernels/attention/cudnn_backward.h"
#include "halo/kernels/cuda/cuda_kernels.h"

namespace halo {
namespace {

constexpr int64_t kCausalFromTopLeft = 1;  // the CUDA kernel's name for our mask

// x [N, G, d] -> [1, N, H, d], head h a copy of h / (H/G).
at::Tensor expand_heads(const at::Tensor& x, int64_t heads) {
  const int64_t groups = x.size(1);
  return x.unsqueeze(2)
      .expand({x.size(0), groups, heads / groups, x.size(2)})
      .reshape({1, x.size(0), heads, x.size(2)});
}

// bf16: FlashAttention-2 or cuDNN, which read shared heads where they are. fp32: the
// memory-efficient kernel, for those have no fp32 form.
bool uses_flash(const at::Tensor& q) {
  return q.scalar_type() == at::kBFloat16;
}

// How LibTorch's kernels sum while this lives. With warnings in place of errors Flash has no fixed
// order, and the memory-efficient kernel warns that it has none, so here they are errors.
class OrderOfSums {
 public:
  explicit OrderOfSums(bool deterministic) {
    context_.setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
  }
  ~OrderOfSums() { context_.setDeterministicAlgorithms(before_, warned_before_); }
  OrderOfSums(const OrderOfSums&) = delete;
  OrderOfSums& operator=(const OrderOfSums&) = delete;

 private:
  at::Context& context_ = at::globalContext();
  const bool before_ = context_.deterministicAlgorithms();
  const bool warned_before_ = context_.deterministicAlgorithmsWarnOnly();
};

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// In its deterministic form Flash gives a head of a sequence ceil(processors / (heads x sequences))
// blocks, and a processor holds one block: 16 heads on 132 processors are 144 blocks, of which the
// last 12 run alone and take as long as all others. So heads are shared out over calls whose blocks
// fill the processors: 12 and 4 of those 16, both 132 blocks. Returns the heads of each call, in
// multiples of `group`.
std::vector<int64_t> heads_per_call(int64_t heads, int64_t group, int64_t sequences,
                                    int64_t processors) {
  constexpr double kCall = 1e-3;  // of the time a block takes for all of a head
  const auto time = [&](int64_t share) {
    const int64_t blocks = ceil_div(processors, share * sequences);
    return double(ceil_div(blocks * share * sequences, processors)) / double(blocks) + kCall;
  };
  // best[h]: the least time of the first h heads, with `last[h]` of them in the last call.
  std::vector<double> best(heads + 1, std::numeric_limits<double>::infinity());
  std::vector<int64_t> last(heads + 1);
  best[0] = 0;
  for (int64_t h = group; h <= heads; h += group) {
    for (int64_t share = group; share <= h; share += group) {
      if (best[h - share] + time(share) >= best[h]) continue;
      best[h] = best[h - share] + time(share);
      last[h] = share;
    }
  }
  std::vector<int64_t> calls;
  for (int64_t h = heads; h > 0; h -= last[h]) calls.push_back(last[h]);
  return calls;
}

// Where cuDNN's kernels are faster than Flash, on Hopper (docs/decisions/attention.md): the length
// of sequences that are all as long, and so make a batch. It plans anew for every shape, which only
// training's rows repay.
std::optional<int64_t> cudnn_length(const at::Tensor& q, const Sequences& sequences) {
  constexpr int64_t kRows = 128;  // training's rows are multiples, a prompt hardly ever is
  const int64_t head_size = q.size(2);
  if (!sequences.known_to_host() || (head_size != 64 && head_size != 128)) return {};
  const int64_t length = sequences.max_length();
  const bool batch = length % kRows == 0 && length * sequences.count() == sequences.num_tokens();
  return batch && compute_capability(q) == 9 ? std::optional(length) : std::nullopt;
}

// x [N, H, d] as [N / length, H, length, d], and back.
at::Tensor as_batch(const at::Tensor& x, int64_t length) {
  return x.view({-1, length, x.size(1), x.size(2)}).transpose(1, 2);
}
at::Tensor as_tokens(const at::Tensor& x) {
  return x.transpose(1, 2).reshape({-1, x.size(1), x.size(3)});
}

AttentionForward cudnn_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               double scale, int64_t length) {
  auto out = at::_cudnn_attention_forward(
      as_batch(q, length), as_batch(k, length), as_batch(v, length), /*attn_bias=*/{}, {}, {},
      length, length, /*compute_log_sumexp=*/true, /*dropout_p=*/0, /*is_causal=*/true,
      /*return_debug_mask=*/false, scale);
  const at::Tensor& log_sums = std::get<1>(out);  // [B, H, length(, 1)]; Flash has [H, N]
  const at::Tensor packed =
      log_sums.view({-1, q.size(1), length}).transpose(0, 1).reshape({q.size(1), q.size(0)});
  return {as_tokens(std::get<0>(out)), packed, std::get<6>(out), std::get<7>(out), log_sums};
}

AttentionGradients cudnn_backward(const at::Tensor& d_o, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const AttentionForward& forward,
                                  double scale, int64_t length) {
  auto [d_q, d_k, d_v] = at::_cudnn_attention_backward(
      as_batch(d_o, length), as_batch(q, length), as_batch(k, length), as_batch(v, length),
      as_batch(forward.o, length), forward.cudnn_log_sums, forward.seed, forward.offset,
      /*attn_bias=*/{}, {}, {}, length, length, /*dropout_p=*/0,
      /*is_causal=*/true, scale);
  return {as_tokens(d_q), as_tokens(d_k), as_tokens(d_v)};
}

}  // namespace

AttentionForward attention_aten(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                double scale, const Sequences& sequences) {
  const at::Tensor& offsets = sequences.offsets_i32();
  const int64_t longest = sequences.max_length();
  if (uses_flash(q)) {
    if (const auto length = cudnn_length(q, sequences)) {
      return cudnn_forward(q, k, v, scale, *length);
    }
    auto [o, log_sums, seed, offset, mask] =
        at::_flash_attention_forward(q, k, v, offsets, offsets, longest, longest, /*dropout_p=*/0,
                                     /*is_causal=*/true, /*return_debug_mask=*/false, scale);
    return {o, log_sums, seed, offset, {}};
  }
  auto [o, log_sums, seed, offset, max_q, max_k] = at::_efficient_attention_forward(
      q.unsqueeze(0), expand_heads(k, q.size(1)), expand_heads(v, q.size(1)), /*bias=*/{}, offsets,
      offsets, longest, longest, /*dropout_p=*/0, kCausalFromTopLeft, /*compute_log_sumexp=*/true,
      scale);
  return {o.squeeze(0), log_sums, seed, offset, {}};
}

namespace {

AttentionGradients flash_backward(const at::Tensor& d_o, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const AttentionForward& forward,
                                  const AttentionSettings& settings, const Sequences& sequences) {
  const at::Tensor& offsets = sequences.offsets_i32();
  const int64_t longest = sequences.max_length();
  const int64_t heads = q.size(1), group = heads / k.size(1);
  const at::Tensor& log_sums = forward.log_sums;
  HALO_CHECK(log_sums.dim() == 2 && log_sums.size(0) == heads,
             "FlashAttention's log-sum-exps are not [heads, tokens]");
  const std::vector<int64_t> calls =
      settings.deterministic ? heads_per_call(heads, group, sequences.count(), num_processors(q))
                             : std::vector{heads};
  std::vector<at::Tensor> d_q, d_k, d_v;
  int64_t first = 0;
  for (const int64_t share : calls) {
    const auto queries = [&](const at::Tensor& x) { return x.narrow(1, first, share); };
    const auto keys = [&](const at::Tensor& x) {
      return x.narrow(1, first / group, share / group);
    };
    auto [of_q, of_k, of_v] = at::_flash_attention_backward(
        queries(d_o), queries(q), keys(k), keys(v), queries(forward.o),
        log_sums.narrow(0, first, share), offsets, offsets, longest, longest, /*dropout_p=*/0,
        /*is_causal=*/true, forward.seed, forward.offset, settings.scale);
    d_q.push_back(of_q);
    d_k.push_back(of_k);
    d_v.push_back(of_v);
    first += share;
  }
  if (calls.size() == 1) return {d_q[0], d_k[0], d_v[0]};
  return {at::cat(d_q, 1), at::cat(d_k, 1), at::cat(d_v, 1)};
}

}  // namespace

AttentionGradients attention_aten_backward(const at::Tensor& d_o, const at::Tensor& q,
                                           const at::Tensor& k, const at::Tensor& v,
                                           const AttentionForward& forward,
                                           const AttentionSettings& settings,
                                           const Sequences& sequences) {
  const OrderOfSums order(settings.deterministic);
  if (uses_flash(q)) {
    const auto length = cudnn_length(q, sequences);
    if (length && !settings.deterministic)
      return cudnn_backward(d_o, q, k, v, forward, settings.scale, *length);
    // LibTorch does not ask cuDNN for a fixed order of sums.
    if (length && has_cuda_kernels(CudaKernels::kAttentionBackward, q)) {
      const auto share = cudnn_heads_per_call(sequences.count(), *length, q.size(1), k.size(1));
      if (share) {
        if (auto d = cudnn_fixed_backward(d_o, q, k, v, forward, settings.scale, *length, *share))
          return *std::move(d);
      }
    }
    return flash_backward(d_o, q, k, v, forward, settings, sequences);
  }
  const at::Tensor& offsets = sequences.offsets_i32();
  const int64_t longest = sequences.max_length();
  // One split of the keys: with more, dq would be summed in no fixed order.
  auto [d_q, d_k, d_v, d_bias] = at::_efficient_attention_backward(
      d_o.unsqueeze(0), q.unsqueeze(0), expand_heads(k, q.size(1)), expand_heads(v, q.size(1)),
      /*bias=*/{}, forward.o.unsqueeze(0), offsets, offsets, longest, longest, forward.log_sums,
      /*dropout_p=*/0, forward.seed, forward.offset, kCausalFromTopLeft,
      /*bias_requires_grad=*/false, settings.scale,
      /*num_splits_key=*/1);
  return {d_q.squeeze(0), d_k.squeeze(0), d_v.squeeze(0)};
}

AttentionPart attention_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              double scale, bool causal) {
  // Flash aligns the triangle with the last key.
  const auto out = at::_flash_attention_forward(
      q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), /*cum_seq_q=*/{}, /*cum_seq_k=*/{}, q.size(0),
      k.size(0), /*dropout_p=*/0, causal, /*return_debug_mask=*/false, scale);
  return {std::get<0>(out).squeeze(0), std::get<1>(out).squeeze(0)};
}

AttentionPart attention_cudnn_part(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   double scale, bool causal) {
  const auto out = at::_cudnn_attention_forward(
      as_batch(q, q.size(0)), as_batch(k, k.size(0)), as_batch(v, v.size(0)), /*attn_bias=*/{}, {},
      {}, q.size(0), k.size(0), /*compute_log_sumexp=*/true, /*dropout_p=*/0, causal,
      /*return_debug_mask=*/false, scale);
  return {as_tokens(std::get<0>(out)), std::get<1>(out).view({q.size(1), q.size(0)})};
}

}  // namespace halo
