#include "halo/kernels/common/sequences.h"

#include <algorithm>
#include <limits>

#include "ATen/ATen.h"
#include "halo/base/check.h"

namespace halo {

at::Tensor to_device(const at::Tensor& x, at::Device device) {
  if (!device.is_cuda() || !x.is_cpu()) return x.to(device);
  return x.pin_memory().to(device, /*non_blocking=*/true);
}

Sequences::Sequences(std::vector<int64_t> offsets, at::Device device)
    : on_host_(std::move(offsets)) {
  HALO_CHECK(!on_host_.empty() && on_host_.front() == 0, "sequences: offsets must start with 0");
  count_ = static_cast<int64_t>(on_host_.size()) - 1;
  num_tokens_ = on_host_.back();
  HALO_CHECK(num_tokens_ <= std::numeric_limits<int32_t>::max(),
             "sequences: {} tokens in one batch; at most 2^31 - 1", num_tokens_);
  auto host = at::empty({count_ + 1}, at::kInt);
  int32_t* data = host.data_ptr<int32_t>();
  for (int64_t i = 0; i <= count_; ++i) {
    HALO_CHECK(i == 0 || on_host_[i] >= on_host_[i - 1], "sequences: offset {} is {}, before it {}",
               i, on_host_[i], on_host_[i - 1]);
    data[i] = static_cast<int32_t>(on_host_[i]);
    if (i > 0) max_length_ = std::max(max_length_, on_host_[i] - on_host_[i - 1]);
  }
  on_device_ = to_device(host, device);
}

Sequences::Sequences(const at::Tensor& offsets_on_device, int64_t num_tokens, int64_t max_length)
    : on_device_(offsets_on_device),
      count_(offsets_on_device.numel() - 1),
      num_tokens_(num_tokens),
      max_length_(max_length) {
  HALO_CHECK(on_device_.dim() == 1 && count_ >= 1 && on_device_.scalar_type() == at::kInt,
             "sequences: offsets on the device must be int32 [sequences + 1]");
}

const std::vector<int64_t>& Sequences::offsets() const {
  HALO_CHECK(known_to_host(),
             "sequences: the device alone knows these offsets; a form that reads them on the host "
             "has no place in a recorded step");
  return on_host_;
}

}  // namespace halo
