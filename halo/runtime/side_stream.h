// Work that a device does beside what it computes.
#pragma once

#include <c10/core/StreamGuard.h>

#include <optional>

#include "halo/runtime/device_event.h"

namespace halo {

// A queue of a GPU's work beside the current one. A CPU does what it is given at once.
class SideStream {
 public:
  explicit SideStream(at::Device device) : device_(device) {
    if (device.is_cpu()) return;
    const c10::impl::VirtualGuardImpl devices(device.type());
    stream_ = devices.getStreamFromGlobalPool(devices.getDevice(), /*isHighPriority=*/true);
  }

  // Gives the device `work`, which begins when it has done all that the current stream was given so
  // far. Returns when it is done.
  template <class Work>
  DeviceEvent run(Work work) const {
    const DeviceEvent before(device_);
    std::optional<c10::StreamGuard> guard;
    if (stream_) guard.emplace(*stream_);
    before.hold_back();
    work();
    return DeviceEvent(device_);
  }

 private:
  at::Device device_;
  std::optional<c10::Stream> stream_;
};

}  // namespace halo
