// The kernels of adamw.cu, and the factors that every form of a step shares.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

// What a step needs besides the tensors, worked out once in fp64.
struct AdamWFactors {
  float keep1, take1;   // beta1, 1 - beta1
  float keep2, take2;   // beta2, 1 - beta2
  float step;           // lr / (1 - beta1^t)
  float inverse_bias2;  // 1 / sqrt(1 - beta2^t)
  float eps;
  float decay;  // lr * weight_decay
};

struct AdamWLaunch {
  int64_t count = 0;
  AdamWFactors factors{};
  const float *grad_scale = nullptr, *apply = nullptr;  // one value each, on the device
  const float* grad = nullptr;
  const float* decay_mask = nullptr;  // null: no decay
  float *master = nullptr, *m = nullptr, *v = nullptr;
  void* compute = nullptr;  // null: no copy
  Element compute_element = Element::kBFloat16;
};
void launch_adamw(const AdamWLaunch& args, void* stream);

// Elements that one block of the squared norm sums.
inline constexpr int64_t kNormBlock = int64_t{1} << 15;
inline int64_t norm_blocks(int64_t count) {
  return (count + kNormBlock - 1) / kNormBlock;
}

// total = sum of x^2. partial [norm_blocks(count)] is scratch.
void launch_squared_norm(const float* x, int64_t count, double* partial, double* total,
                         void* stream);

}  // namespace halo
