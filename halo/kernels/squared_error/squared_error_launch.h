// The kernel of squared_error.cu.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

// Elements whose squares one block sums.
inline constexpr int64_t kSquaredErrorBlock = int64_t{1} << 13;
inline int64_t squared_error_blocks(int64_t count) {
  return (count + kSquaredErrorBlock - 1) / kSquaredErrorBlock;
}

struct SquaredErrorLaunch {
  Element element = Element::kFloat;
  int64_t count = 0;
  const void *y = nullptr, *target = nullptr;  // [count]
  const float* scale = nullptr;                // one value on the device
  void* gradient = nullptr;                    // [count]
  float* partial = nullptr;                    // [squared_error_blocks(count)]: sums of squares
};

void launch_squared_error(const SquaredErrorLaunch& args, void* stream);

}  // namespace halo
