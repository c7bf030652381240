// Checks, the reference on the CPU, and the choice of the kernel.
#include "halo/kernels/sample/sample_rows.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/base/random.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/sample/sample_rows_launch.h"

namespace halo {
namespace {

void check(const at::Tensor& logits, const SampleRows& rows) {
  HALO_CHECK(logits.dim() == 2 && logits.size(1) > 0 && logits.scalar_type() == at::kFloat,
             "sample_rows: the logits must be fp32 [S, V]");
  const int64_t count = logits.size(0);
  for (const at::Tensor* x : {&rows.temperature, &rows.top_p, &rows.min_p}) {
    HALO_CHECK(x->sizes() == at::IntArrayRef({count}) && x->scalar_type() == at::kFloat,
               "sample_rows: temperature, top_p and min_p must be fp32 [{}]", count);
  }
  HALO_CHECK(
      rows.top_k.sizes() == at::IntArrayRef({count}) &&
          rows.positions.sizes() == at::IntArrayRef({count}) &&
          rows.streams.sizes() == at::IntArrayRef({count, 2}) &&
          rows.top_k.scalar_type() == at::kLong && rows.positions.scalar_type() == at::kLong &&
          rows.streams.scalar_type() == at::kLong,
      "sample_rows: top_k and positions must be int64 [{}], streams int64 [{}, 2]", count, count);
}

// 24 random bits: the upper ones of the first 64 that Philox gives.
uint64_t draw_of(const int64_t* stream, int64_t position) {
  const auto low = [](int64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](int64_t x) { return static_cast<uint32_t>(static_cast<uint64_t>(x) >> 32); };
  return philox4x32({low(position), high(position), low(stream[1]), high(stream[1])},
                    {low(stream[0]), high(stream[0])})[1] >>
         8;
}

struct Settings {
  float temperature, top_p, min_p;
  int64_t top_k;
  uint64_t draw;  // 24 bits
};

// The weights' running sums, of tokens by falling logit, equal ones by id.
struct Order {
  std::vector<int> ids;
  std::vector<uint64_t> through;

  Order(const float* logits, int64_t count, float most, float temperature)
      : ids(count), through(count) {
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    uint64_t sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      const float depth = (most - logits[ids[i]]) * (1 / temperature);
      sum += std::llrint(std::exp(-depth) * 0x1p32F);
      through[i] = sum;
    }
  }
  uint64_t weight(int64_t i) const { return through[i] - (i > 0 ? through[i - 1] : 0); }
  // The token at which the running sum passes the target.
  int64_t passes(uint64_t target) const {
    return std::upper_bound(through.begin(), through.end(), target) - through.begin();
  }
};

int choose(const float* logits, int64_t count, float most, const Settings& settings) {
  const Order order(logits, count, most, settings.temperature);
  const uint64_t least = std::llrint(settings.min_p * 0x1p32F);
  uint64_t kept = 0;
  for (int64_t i = 0; i < count && order.weight(i) >= least; ++i) kept = order.through[i];
  if (0 < settings.top_k && settings.top_k < count)
    kept = std::min(kept, order.through[settings.top_k - 1]);
  if (settings.top_p < 1) {
    const auto wanted = static_cast<uint64_t>(
        std::ceil(static_cast<double>(settings.top_p) * static_cast<double>(kept)));
    kept = order.through[order.passes(wanted > 0 ? wanted - 1 : 0)];
  }
  const uint64_t target = (kept >> 24) * settings.draw + ((kept & 0xffffff) * settings.draw >> 24);
  return order.ids[order.passes(target)];
}

SampledRows reference(const at::Tensor& logits, const SampleRows& rows) {
  const int64_t count = logits.size(0), columns = logits.size(1);
  SampledRows out{at::empty({count}, at::kLong), at::empty({count}, at::kFloat)};
  const auto of = [](const at::Tensor& x) { return x.cpu().contiguous(); };
  const at::Tensor temperature = of(rows.temperature), top_p = of(rows.top_p),
                   min_p = of(rows.min_p), top_k = of(rows.top_k), streams = of(rows.streams),
                   positions = of(rows.positions);
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = logits.const_data_ptr<float>() + r * columns;
      const float* greatest = std::max_element(row, row + columns);
      int64_t token = greatest - row;
      const int64_t* stream = streams.const_data_ptr<int64_t>() + 2 * r;
      const Settings settings{temperature.const_data_ptr<float>()[r],
                              top_p.const_data_ptr<float>()[r], min_p.const_data_ptr<float>()[r],
                              top_k.const_data_ptr<int64_t>()[r],
                              draw_of(stream, positions.const_data_ptr<int64_t>()[r])};
      if (settings.temperature > 0) token = choose(row, columns, *greatest, settings);
      double sum = 0;
      for (int64_t i = 0; i < columns; ++i) sum += std::exp(double(row[i]) - *greatest);
      out.tokens.mutable_data_ptr<int64_t>()[r] = token;
      out.log_probabilities.mutable_data_ptr<float>()[r] =
          static_cast<float>(double(row[token]) - *greatest - std::log(sum));
    }
  });
  return out;
}

SampledRows run_kernel(const at::Tensor& logits, const SampleRows& rows) {
  const DeviceStream stream(logits);
  const int64_t count = logits.size(0);
  const SampledRows out{at::empty({count}, logits.options().dtype(at::kLong)),
                        at::empty({count}, logits.options())};
  launch_sample_rows({.rows = count,
                      .columns = logits.size(1),
                      .logits = logits.const_data_ptr<float>(),
                      .temperature = rows.temperature.const_data_ptr<float>(),
                      .top_p = rows.top_p.const_data_ptr<float>(),
                      .min_p = rows.min_p.const_data_ptr<float>(),
                      .top_k = rows.top_k.const_data_ptr<int64_t>(),
                      .streams = rows.streams.const_data_ptr<int64_t>(),
                      .positions = rows.positions.const_data_ptr<int64_t>(),
                      .tokens = out.tokens.mutable_data_ptr<int64_t>(),
                      .log_probabilities = out.log_probabilities.mutable_data_ptr<float>()},
                     stream.handle());
  return out;
}

}  // namespace

SampledRows sample_rows(const at::Tensor& logits, const SampleRows& rows) {
  const at::NoGradGuard no_grad;
  check(logits, rows);
  const at::Tensor x = logits.contiguous();
  if (has_cuda_kernels(CudaKernels::kSample, x)) return run_kernel(x, rows);
  const SampledRows out = reference(x.cpu(), rows);
  return {out.tokens.to(x.device()), out.log_probabilities.to(x.device())};
}

}  // namespace halo
