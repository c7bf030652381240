// Greedy choice, and the inverse of the distribution function over tokens sorted by probability:
// LibTorch operations on whole rows, every row worked out by itself in fp64, or one kernel. Nothing
// is read back from the device.
#include "halo/kernels/sample/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/common/sequences.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/sample/sample_launch.h"

namespace halo {
namespace {

// What penalties and biases change: single logits, as places in the flattened rows.
struct Changes {
  std::vector<int64_t> places;
  std::vector<double> factors;  // positive logits are divided by, negative ones multiplied
  std::vector<double> taken;    // then subtracted

  void add(int64_t place, double factor, double less) {
    places.push_back(place);
    factors.push_back(factor);
    taken.push_back(less);
  }
};

void add_changes(const SampleRow& row, int64_t first_place, Changes& changes) {
  const SampleArgs& args = *row.args;
  const auto bias_of = [&](int64_t token) {
    const auto at = std::ranges::find(args.logit_bias, token, &std::pair<int64_t, double>::first);
    return at == args.logit_bias.end() ? 0 : at->second;
  };
  const bool counted = args.needs_counts();
  HALO_CHECK(!counted || row.counts, "sample_tokens: penalties need the tokens' counts");
  if (counted) {
    for (const auto& [token, count] : *row.counts) {
      const double less = args.frequency_penalty * static_cast<double>(count.in_answer) +
                          (count.in_answer > 0 ? args.presence_penalty : 0) - bias_of(token);
      changes.add(first_place + token, args.repetition_penalty, less);
    }
  }
  for (const auto& [token, bias] : args.logit_bias) {
    if (!counted || !row.counts->contains(token)) changes.add(first_place + token, 1, -bias);
  }
}

// The logits as penalties and biases leave them; the given ones where there are none.
at::Tensor with_changes(const at::Tensor& logits, std::span<const SampleRow> rows) {
  Changes changes;
  for (size_t s = 0; s < rows.size(); ++s) {
    add_changes(rows[s], static_cast<int64_t>(s) * logits.size(1), changes);
  }
  if (changes.places.empty()) return logits;
  const auto numbers = to_device(
      at::stack({at::tensor(changes.factors, at::kDouble), at::tensor(changes.taken, at::kDouble)}),
      logits.device());
  const auto places = to_device(at::tensor(changes.places, at::kLong), logits.device());
  at::Tensor changed = logits.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  at::Tensor flat = changed.view(-1);
  const auto old = flat.index_select(0, places).to(at::kDouble);
  const auto scaled = at::where(old.gt(0), old / numbers[0], old * numbers[0]);
  flat.index_copy_(0, places, (scaled - numbers[1]).to(at::kFloat));
  return changed;
}

// One number a row, as a column on the device.
template <class Get>
at::Tensor column(std::span<const SampleRow> rows, at::Device device, Get get) {
  std::vector<double> values;
  for (const SampleRow& row : rows) values.push_back(static_cast<double>(get(row)));
  return to_device(at::tensor(values, at::kDouble), device).unsqueeze(1);
}

at::Tensor draw(const at::Tensor& logits, std::span<const SampleRow> rows) {
  const at::Device device = logits.device();
  const int64_t vocabulary = logits.size(1);
  const auto kept_ranks = [&](const SampleRow& row) {
    return row.args->top_k > 0 ? std::min(row.args->top_k, vocabulary) : vocabulary;
  };
  int64_t widest = 0, narrowest = vocabulary;
  bool has_min_p = false;
  for (const SampleRow& row : rows) {
    widest = std::max(widest, kept_ranks(row));
    narrowest = std::min(narrowest, kept_ranks(row));
    has_min_p |= row.args->min_p > 0;
  }
  auto [sorted, ids] = logits.to(at::kDouble).sort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
  sorted = sorted.narrow(1, 0, widest) /
           column(rows, device, [](const SampleRow& row) { return row.args->temperature; });
  if (narrowest < widest) {
    const auto rank = at::arange(widest, sorted.options());
    sorted.masked_fill_(rank.ge(column(rows, device, kept_ranks)),
                        -std::numeric_limits<double>::infinity());
  }
  const auto p = at::softmax(sorted, 1), sums = p.cumsum(1);
  // The smallest number of tokens, at least one, that together have top_p of the probability.
  const auto top_p = column(rows, device, [](const SampleRow& row) { return row.args->top_p; });
  auto last = sums.lt(top_p).sum(1, /*keepdim=*/true).clamp_max(widest - 1);
  if (has_min_p) {
    const auto least = column(rows, device, [](const SampleRow& row) { return row.args->min_p; });
    last = at::minimum(last, p.ge(least * p.narrow(1, 0, 1)).sum(1, /*keepdim=*/true) - 1);
  }
  const auto uniform = column(rows, device, [](const SampleRow& row) { return row.uniform; });
  const auto threshold = sums.gather(1, last) * uniform;
  const auto chosen = at::minimum(sums.le(threshold).sum(1, /*keepdim=*/true), last);
  return ids.gather(1, chosen).squeeze(1);
}

bool has_kernel(const at::Tensor& logits) {
  return logits.scalar_type() == at::kFloat && has_cuda_kernels(CudaKernels::kSample, logits) &&
         logits.size(1) <= kMostSampledTokens;
}

at::Tensor run_kernel(const at::Tensor& logits, std::span<const SampleRow> rows) {
  std::vector<SampleSettings> settings;
  for (const auto& [args, uniform, counts] : rows)
    settings.push_back({args->temperature, args->top_p, args->min_p, uniform, args->top_k});
  const auto bytes = static_cast<int64_t>(settings.size() * sizeof(SampleSettings));
  const at::Tensor host = at::from_blob(settings.data(), {bytes}, at::kByte);
  const DeviceStream stream(logits);
  const at::Tensor contiguous = logits.contiguous(), on_device = to_device(host, logits.device());
  const at::Tensor tokens = at::empty({logits.size(0)}, logits.options().dtype(at::kLong));
  launch_sample(
      {.logits = contiguous.const_data_ptr<float>(),
       .rows = logits.size(0),
       .vocabulary = logits.size(1),
       .settings = reinterpret_cast<const SampleSettings*>(on_device.const_data_ptr<uint8_t>()),
       .tokens = tokens.mutable_data_ptr<int64_t>()},
      stream.handle());
  return tokens;
}

}  // namespace

void check_sample_args(const SampleArgs& args, int64_t vocabulary) {
  const auto check = [](bool good, const char* what, double value) {
    if (!good) throw_error("{}, got {}", what, value);
  };
  check(args.temperature >= 0 && std::isfinite(args.temperature),
        "temperature must be a number from 0 on", args.temperature);
  check(args.top_p > 0 && args.top_p <= 1, "top_p must be above 0 and at most 1", args.top_p);
  check(args.top_k >= 0, "top_k must be 0 or more", static_cast<double>(args.top_k));
  check(args.min_p >= 0 && args.min_p <= 1, "min_p must be between 0 and 1", args.min_p);
  check(args.repetition_penalty > 0 && std::isfinite(args.repetition_penalty),
        "repetition_penalty must be above 0", args.repetition_penalty);
  check(std::isfinite(args.presence_penalty), "presence_penalty must be a number",
        args.presence_penalty);
  check(std::isfinite(args.frequency_penalty), "frequency_penalty must be a number",
        args.frequency_penalty);
  for (const auto& [token, bias] : args.logit_bias) {
    if (token < 0 || token >= vocabulary) {
      throw_error("logit_bias: token {} is outside the vocabulary of {}", token, vocabulary);
    }
    check(!std::isnan(bias) && bias < std::numeric_limits<double>::infinity(),
          "logit_bias must be a number or minus infinity", bias);
  }
}

at::Tensor sample_tokens(const at::Tensor& logits, std::span<const SampleRow> rows) {
  HALO_CHECK(logits.dim() == 2 && logits.size(1) > 0 && logits.size(0) == std::ssize(rows),
             "sample_tokens: logits must be [{}, V]", rows.size());
  for (const SampleRow& row : rows) check_sample_args(*row.args, logits.size(1));
  at::NoGradGuard no_grad;
  const at::Tensor changed = with_changes(logits, rows);
  if (has_kernel(changed)) return run_kernel(changed, rows);
  std::vector<SampleRow> drawn;
  std::vector<int64_t> places;
  for (size_t s = 0; s < rows.size(); ++s) {
    if (rows[s].args->temperature == 0) continue;
    drawn.push_back(rows[s]);
    places.push_back(static_cast<int64_t>(s));
  }
  if (drawn.size() == rows.size()) return draw(changed, rows);
  at::Tensor tokens = changed.argmax(1);  // the first of equal ones
  if (drawn.empty()) return tokens;
  const auto index = to_device(at::tensor(places, at::kLong), logits.device());
  return tokens.index_copy_(0, index, draw(changed.index_select(0, index), drawn));
}

at::Tensor mask_logits(const at::Tensor& logits, std::span<const int64_t> rows,
                       const at::Tensor& allowed) {
  const int64_t count = std::ssize(rows), vocabulary = logits.size(1);
  HALO_CHECK(allowed.dim() == 2 && allowed.size(0) == count &&
                 allowed.size(1) == mask_words(vocabulary) && allowed.scalar_type() == at::kInt,
             "mask_logits: the mask must be [{}, {}] int32", count, mask_words(vocabulary));
  at::NoGradGuard no_grad;
  const at::Tensor words = to_device(allowed, logits.device()).unsqueeze(2);
  const at::Tensor shifts = at::arange(32, words.options());
  const at::Tensor banned = words.bitwise_right_shift(shifts)
                                .bitwise_and_(1)
                                .view({count, -1})
                                .narrow(1, 0, vocabulary)
                                .eq(0);
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  if (count == logits.size(0)) return logits.masked_fill(banned, kNever);
  const at::Tensor index = to_device(at::tensor(rows, at::kLong), logits.device());
  return logits.index_copy(0, index, logits.index_select(0, index).masked_fill_(banned, kNever));
}

TokenLogprobs token_logprobs(const at::Tensor& logits, std::span<const int64_t> tokens,
                             int64_t count) {
  HALO_CHECK(logits.dim() == 2 && logits.size(0) == std::ssize(tokens) && count >= 0,
             "token_logprobs: {} tokens for logits of {} rows", tokens.size(), logits.size(0));
  at::NoGradGuard no_grad;
  const auto target = to_device(at::tensor(tokens, at::kLong), logits.device()).unsqueeze(1);
  const auto most = logits.amax(1, /*keepdim=*/true);
  const auto sum = logits.sub(most).exp_().sum(1, /*keepdim=*/true, at::kDouble).log_();
  const auto logprob = [&](const at::Tensor& of) { return of.to(at::kDouble) - most - sum; };
  const auto chosen = logprob(logits.gather(1, target)).cpu();
  TokenLogprobs out;
  out.chosen.assign(chosen.const_data_ptr<double>(),
                    chosen.const_data_ptr<double>() + tokens.size());
  out.top.resize(tokens.size());
  count = std::min(count, logits.size(1));
  if (count == 0) return out;
  const auto [values, ids] = logits.topk(count, 1);
  const auto top = logprob(values).cpu(), top_ids = ids.cpu();
  const auto p = top.accessor<double, 2>();
  const auto id = top_ids.accessor<int64_t, 2>();
  for (size_t s = 0; s < tokens.size(); ++s) {
    const auto row = static_cast<int64_t>(s);
    for (int64_t i = 0; i < count; ++i) out.top[s].push_back({id[row][i], p[row][i]});
    std::ranges::sort(out.top[s], {},
                      [](const TokenLogprob& t) { return std::pair(-t.logprob, t.token); });
  }
  return out;
}

}  // namespace halo
