// The kernels of swiglu.cu: one read and one write of every element.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

struct SwigluLaunch {
  Element element = Element::kFloat;
  int64_t rows = 0, columns = 0;  // N, F
  const void* gate_up = nullptr;  // [N, 2F]
  const void* dy = nullptr;       // [N, F]; null: forward
  void* out = nullptr;            // forward: [N, F]; backward: gate_up's gradient [N, 2F]
};

void launch_swiglu(const SwigluLaunch& args, void* stream);

}  // namespace halo
