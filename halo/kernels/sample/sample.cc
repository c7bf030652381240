// Greedy choice, and the inverse of the distribution function over tokens sorted by probability.
// LibTorch operations on whole rows only, so nothing is read back from the device; every row is
// worked out by itself in fp64.
#include "halo/kernels/sample/sample.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/check.h"

namespace halo {

at::Tensor sample_tokens(const at::Tensor& logits, const SampleArgs& args,
                         const at::Tensor& uniforms) {
  HALO_CHECK(logits.dim() == 2 && logits.size(1) > 0, "sample_tokens: logits must be [S, V]");
  HALO_CHECK(args.temperature >= 0 && args.top_p > 0 && args.top_p <= 1 && args.top_k >= 0,
             "sample_tokens: temperature must be >= 0, top_p in (0, 1] and top_k >= 0, got {}, {}, "
             "{}",
             args.temperature, args.top_p, args.top_k);
  at::NoGradGuard no_grad;
  if (args.temperature == 0) return logits.argmax(1);  // the first of equal ones
  HALO_CHECK(uniforms.defined() && uniforms.dim() == 1 && uniforms.size(0) == logits.size(0),
             "sample_tokens: one uniform number a row is needed, for {} rows", logits.size(0));
  auto [sorted, ids] = logits.to(at::kDouble).sort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
  if (args.top_k > 0) {
    const int64_t kept = std::min(args.top_k, logits.size(1));
    sorted = sorted.narrow(1, 0, kept);
    ids = ids.narrow(1, 0, kept);
  }
  const auto sums = at::softmax(sorted / args.temperature, 1).cumsum(1);
  // The smallest number of tokens, at least one, that together have top_p of the probability.
  const auto last = sums.lt(args.top_p).sum(1, /*keepdim=*/true).clamp_max(sorted.size(1) - 1);
  const auto threshold = sums.gather(1, last) * uniforms.to(at::kDouble).unsqueeze(1);
  const auto chosen = at::minimum(sums.le(threshold).sum(1, /*keepdim=*/true), last);
  return ids.gather(1, chosen).squeeze(1);
}

}  // namespace halo
