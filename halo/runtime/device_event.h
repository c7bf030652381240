// A point in a device's work.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <chrono>
#include <memory>

namespace halo {

// When a device has done all it was given so far. The host can be a step ahead, so its own clock
// says nothing about how long a device's step took.
class DeviceEvent {
 public:
  explicit DeviceEvent(at::Device device) {
    if (device.is_cpu()) return;
    event_ = std::make_shared<c10::Event>(device.type(), c10::EventFlag::BACKEND_DEFAULT);
    event_->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  }
  void wait() const {
    if (event_) event_->synchronize();
  }
  bool passed() const { return !event_ || event_->query(); }
  // What the current stream is given from now on begins behind it; the host waits for nothing.
  void hold_back() const {
    if (!event_) return;
    event_->block(c10::impl::VirtualGuardImpl(event_->device_type()).getStream(event_->device()));
  }
  // Both must have passed.
  double seconds_since(const DeviceEvent& earlier) const {
    return event_ ? earlier.event_->elapsedTime(*event_) * 1e-3
                  : std::chrono::duration<double>(time_ - earlier.time_).count();
  }

 private:
  std::shared_ptr<c10::Event> event_;
  std::chrono::steady_clock::time_point time_ = std::chrono::steady_clock::now();
};

}  // namespace halo
