#include "halo/kernels/sequences.h"

#include <algorithm>
#include <limits>

#include "ATen/ATen.h"
#include "halo/base/check.h"

namespace halo {

at::Tensor to_device(const at::Tensor& x, at::Device device) {
  if (!device.is_cuda() || !x.is_cpu()) return x.to(device);
  return x.pin_memory().to(device, /*non_blocking=*/true);
}

Sequences make_sequences(std::vector<int64_t> offsets, at::Device device) {
  HALO_CHECK(!offsets.empty() && offsets.front() == 0, "sequences: offsets must start with 0");
  HALO_CHECK(offsets.back() <= std::numeric_limits<int32_t>::max(),
             "sequences: {} tokens in one batch; at most 2^31 - 1", offsets.back());
  Sequences out;
  auto host = at::empty({static_cast<int64_t>(offsets.size())}, at::kInt);
  int32_t* data = host.data_ptr<int32_t>();
  for (size_t i = 0; i < offsets.size(); ++i) {
    HALO_CHECK(i == 0 || offsets[i] >= offsets[i - 1], "sequences: offset {} is {}, before it {}",
               i, offsets[i], offsets[i - 1]);
    data[i] = static_cast<int32_t>(offsets[i]);
    if (i > 0) out.max_length = std::max(out.max_length, offsets[i] - offsets[i - 1]);
  }
  out.offsets = std::move(offsets);
  out.offsets_i32 = to_device(host, device);
  return out;
}

}  // namespace halo
