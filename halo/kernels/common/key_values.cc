#include "halo/kernels/common/key_values.h"

#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/store_rows/store_rows.h"

namespace halo {
namespace {

constexpr float kMost = 127;
constexpr float kStep = 1.0F / kMost;  // LibTorch on a GPU divides by a number so
// A scale below it divides as it does: what is smaller would be no normal number.
constexpr float kSmallest = 1e-37F;

// The numbers of one head. NaN among them makes the scale NaN.
float round_head(const float* x, int64_t d, int8_t* out) {
  float most = 0;
  for (int64_t i = 0; i < d; ++i) {
    const float size = std::abs(x[i]);
    if (size > most || std::isnan(size)) most = size;
  }
  const float scale = most * kStep, by = std::max(kSmallest, scale);
  for (int64_t i = 0; i < d; ++i) {
    // NaN, which no int8 is, becomes one of the bounds.
    out[i] = static_cast<int8_t>(std::nearbyint(std::min(kMost, std::max(-kMost, x[i] / by))));
  }
  return scale;
}

// Heads x [N, G, d] on the CPU. Token n's go to out + place(n), their scales `stride` apart to
// scales + scale_place(n).
struct Int8Places {
  int8_t* out;
  float* scales;
  const int64_t* rows;  // of the pool; null: 0, 1, ..
  int64_t block_size;
};

void round_heads(const at::Tensor& x, const Int8Places& to) {
  const at::Tensor from = x.to(at::kFloat).contiguous();
  const int64_t groups = x.size(1), d = x.size(2), size = to.block_size;
  const float* data = from.const_data_ptr<float>();
  constexpr int64_t kGrain = 64;  // tokens
  at::parallel_for(0, x.size(0), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t row = to.rows ? to.rows[n] : n;
      for (int64_t g = 0; g < groups; ++g) {
        to.scales[(row / size * groups + g) * size + row % size] =
            round_head(data + (n * groups + g) * d, d, to.out + (row * groups + g) * d);
      }
    }
  });
}

// Where the scales of rows [N] are in a pool's, laid end to end: [N, G].
at::Tensor scale_places(const at::Tensor& scales, const at::Tensor& rows) {
  const int64_t groups = scales.size(1), size = scales.size(2);
  const at::Tensor block = at::div(rows, size, "floor").unsqueeze(1);
  return (block * groups + at::arange(groups, rows.options())) * size +
         at::remainder(rows, size).unsqueeze(1);
}

}  // namespace

bool are_blocks(const KeyValueBlocks& blocks) {
  const at::Tensor& keys = blocks.keys;
  if (keys.dim() != 4 || keys.sizes() != blocks.values.sizes() || !keys.is_contiguous() ||
      !blocks.values.is_contiguous() || keys.scalar_type() != blocks.values.scalar_type()) {
    return false;
  }
  if (!blocks.is_int8()) return keys.is_floating_point() && !blocks.value_scales.defined();
  const auto fit = [&](const at::Tensor& scales) {
    return scales.defined() && scales.scalar_type() == at::kFloat && scales.is_contiguous() &&
           scales.sizes() == at::IntArrayRef({keys.size(0), keys.size(2), keys.size(1)});
  };
  return keys.scalar_type() == at::kChar && fit(blocks.key_scales) && fit(blocks.value_scales);
}

Int8Rows to_int8(const at::Tensor& x) {
  if (x.is_cpu()) {
    const auto shape = x.sizes().slice(0, x.dim() - 1);
    Int8Rows out{at::empty(x.sizes(), at::kChar), at::empty(shape, at::kFloat)};
    round_heads(x.reshape({-1, 1, x.size(-1)}), {out.values.mutable_data_ptr<int8_t>(),
                                                 out.scales.mutable_data_ptr<float>(), nullptr, 1});
    return out;
  }
  const at::Tensor wide = x.to(at::kFloat);
  Int8Rows out;
  out.scales = wide.abs().amax(-1).mul_(kStep);
  out.values = wide.div(out.scales.clamp_min(kSmallest).unsqueeze(-1))
                   .clamp_(-kMost, kMost)
                   .round_()
                   .to(at::kChar);
  return out;
}

at::Tensor from_int8(const Int8Rows& rows, at::ScalarType type) {
  at::Tensor out = at::empty(rows.values.sizes(), rows.scales.options().dtype(type));
  return at::mul_out(out, rows.values, rows.scales.unsqueeze(-1));
}

void store_tokens(const at::Tensor& pool, const at::Tensor& scales, const at::Tensor& rows,
                  const at::Tensor& x) {
  if (!scales.defined()) {
    store_rows(pool.flatten(0, 1), rows, x.to(pool.scalar_type()).contiguous());
  } else if (pool.is_cpu()) {
    round_heads(x, {pool.mutable_data_ptr<int8_t>(), scales.mutable_data_ptr<float>(),
                    rows.const_data_ptr<int64_t>(), pool.size(1)});
  } else {
    const Int8Rows rounded = to_int8(x.contiguous());
    store_rows(pool.flatten(0, 1), rows, rounded.values);
    scales.view(-1).index_copy_(0, scale_places(scales, rows).flatten(), rounded.scales.flatten());
  }
}

at::Tensor rows_at(const at::Tensor& pool, const at::Tensor& scales, const at::Tensor& rows,
                   at::ScalarType type) {
  const at::Tensor found = pool.flatten(0, 1).index_select(0, rows);
  if (!scales.defined()) return found.to(type);
  const at::Tensor places = scale_places(scales, rows);
  return from_int8({found, scales.view(-1).index_select(0, places.flatten()).view(places.sizes())},
                   type);
}

}  // namespace halo
