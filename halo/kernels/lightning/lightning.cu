// Passes of lightning attention on a GPU: the plan as the kernels read it, and the choice of
// kernel.

#include <algorithm>

#include "halo/kernels/cuda/launch.h"
#include "halo/kernels/lightning/lightning_device.cuh"

namespace halo {
namespace lightning {

int32_t fill_plan(LaunchPlan& plan, const LightningShape& shape,
                  const std::vector<HeadSegments>& segments, int64_t first_head) {
  const int64_t heads = std::min<int64_t>(kMaxHeads, std::ssize(segments) - first_head);
  plan.offsets = shape.offsets;
  plan.tokens = static_cast<int32_t>(shape.tokens);
  plan.sequences = static_cast<int32_t>(shape.sequences);
  plan.num_heads = static_cast<int32_t>(heads);
  plan.first_head = static_cast<int32_t>(first_head);
  plan.all_heads = static_cast<int32_t>(segments.size());
  plan.scale = static_cast<float>(shape.scale);
  int32_t items = 0;
  for (int64_t h = 0; h < heads; ++h) {
    const HeadSegments& of = segments[first_head + h];
    plan.heads[h] = {shape.slopes[first_head + h], items, static_cast<int32_t>(of.segment),
                     static_cast<int32_t>(of.warmup)};
    items += static_cast<int32_t>((shape.tokens + of.segment - 1) / of.segment);
  }
  return items;
}

}  // namespace lightning

namespace {

int count_processors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

}  // namespace

void launch_lightning(std::span<const LightningPass> passes, const LightningShape& shape,
                      LightningKernel kernel, void* stream) {
  if (shape.tokens == 0) return;
  const int processors = count_processors();
  const auto on = static_cast<cudaStream_t>(stream);
  switch (kernel) {
    case LightningKernel::kWgmma:
      lightning::launch_wgmma(passes, shape, processors, on);
      break;
    case LightningKernel::kMma:
      lightning::launch_mma(passes, shape, processors, on);
      break;
    case LightningKernel::kRecurrent:
      lightning::launch_recurrent(passes, shape, processors, on);
      break;
  }
  check_launch("lightning");
}

}  // namespace halo
