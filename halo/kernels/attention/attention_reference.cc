// Attention as plain loops. Every sum runs over keys or dimensions in ascending order, so a token's
// bits depend on its own query and its past alone.

#include <algorithm>
#include <cmath>
#include <limits>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/attention/attention_forms.h"

namespace halo {
namespace {

// o [d] = softmax(scale * q . k_j) v_j over j < count; rows of k and v are `stride` apart.
void attend(const float* q, const float* k, const float* v, float* o, float* weights, int64_t count,
            int64_t stride, int64_t d, float scale) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < count; ++j) {
    float dot = 0;
    for (int64_t i = 0; i < d; ++i) dot += q[i] * k[j * stride + i];
    weights[j] = dot * scale;
    largest = std::max(largest, weights[j]);
  }
  std::fill(o, o + d, 0.0F);
  float sum = 0;
  for (int64_t j = 0; j < count; ++j) {
    const float weight = std::exp(weights[j] - largest);
    sum += weight;
    for (int64_t i = 0; i < d; ++i) o[i] += weight * v[j * stride + i];
  }
  for (int64_t i = 0; i < d; ++i) o[i] /= sum;
}

}  // namespace

at::Tensor attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               double scale) {
  const auto queries = q.to(at::kFloat).contiguous();
  const auto keys = k.to(at::kFloat).contiguous();
  const auto values = v.to(at::kFloat).contiguous();
  const int64_t count = q.size(0), heads = q.size(1), groups = k.size(1), d = q.size(2);
  const int64_t past = k.size(0) - count, stride = groups * d;
  auto out = at::empty({count, heads, d}, queries.options());
  const float *q_data = queries.const_data_ptr<float>(), *k_data = keys.const_data_ptr<float>(),
              *v_data = values.const_data_ptr<float>();
  float* o_data = out.mutable_data_ptr<float>();
  at::parallel_for(0, count * heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> weights(k.size(0));
    for (int64_t row = begin; row < end; ++row) {
      const int64_t group = row % heads / (heads / groups);
      attend(q_data + row * d, k_data + group * d, v_data + group * d, o_data + row * d,
             weights.data(), past + row / heads + 1, stride, d, static_cast<float>(scale));
    }
  });
  return out;
}

}  // namespace halo
