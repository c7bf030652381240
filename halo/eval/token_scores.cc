#include "halo/eval/token_scores.h"

#include <algorithm>

#include "ATen/ATen.h"

namespace halo {

TokenScores score_tokens(const Engine& engine, const at::Tensor& hidden,
                         const std::vector<int64_t>& targets) {
  at::NoGradGuard no_grad;
  constexpr int64_t kMaxLogits = int64_t{1} << 26;  // 256 MB in fp32
  const int64_t rows = std::max<int64_t>(1, kMaxLogits / engine.weights().head.value.size(0));
  const at::Tensor wanted = at::tensor(targets, at::kLong).to(hidden.device());
  TokenScores scores;
  for (int64_t begin = 0; begin < hidden.size(0); begin += rows) {
    const int64_t count = std::min(rows, hidden.size(0) - begin);
    const at::Tensor target = wanted.narrow(0, begin, count).unsqueeze(1);
    const at::Tensor logits = engine.logits(hidden.narrow(0, begin, count));
    const auto [most, best] = logits.max(1, /*keepdim=*/true);
    const at::Tensor chosen = logits.gather(1, target).to(at::kDouble) - most;
    const at::Tensor sum = logits.sub(most).exp_().sum(1, /*keepdim=*/true, at::kDouble);
    const at::Tensor logprob = (chosen - sum.log_()).cpu();
    const at::Tensor is_best = best.eq(target).cpu();
    scores.logprob.insert(scores.logprob.end(), logprob.const_data_ptr<double>(),
                          logprob.const_data_ptr<double>() + count);
    scores.best.insert(scores.best.end(), is_best.const_data_ptr<bool>(),
                       is_best.const_data_ptr<bool>() + count);
  }
  return scores;
}

}  // namespace halo
