#include "halo/model/layer_sharing.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/check.h"

namespace halo {
namespace {

// A tensor whose memory comes and goes.
void point(const at::Tensor& window, const at::Tensor& memory) {
  void* data = memory.defined() ? memory.data_ptr() : nullptr;
  window.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(at::DataPtr(data, window.device()));
}

at::Tensor make_window(int64_t size, const at::Tensor& memory) {
  const at::Tensor window = at::from_blob(memory.data_ptr(), {size}, memory.options());
  point(window, {});
  return window;
}

}  // namespace

LayerSharing::LayerSharing(Communicator& ranks, at::Device device, at::ScalarType compute,
                           std::vector<Group> groups)
    : ranks_(ranks), device_(device), side_(device) {
  int64_t fetched = 0, trained = 0;
  for (Group& group : groups) {
    if (group.layer >= 0) {
      if (!group.compute.defined()) fetched = std::max(fetched, group.size);
      if (group.gradient_sum.defined()) trained = std::max(trained, group.size);
      of_layer_.resize(std::max<size_t>(of_layer_.size(), group.layer + 1), -1);
      of_layer_[group.layer] = std::ssize(groups_);
    }
    groups_.push_back({std::move(group)});
  }
  const auto options = at::TensorOptions().device(device);
  if (fetched > 0) {
    for (Buffer& buffer : weights_) buffer.memory = at::empty({fetched}, options.dtype(compute));
  }
  if (trained > 0) {
    for (Buffer& buffer : gradients_)
      buffer.memory = at::empty({trained}, options.dtype(at::kFloat));
  }
  for (Part& part : groups_) {
    if (part.layer < 0) {
      HALO_CHECK(part.compute.defined(),
                 "layer sharing: weights that belong to no layer are there");
      if (part.gradient_sum.defined()) {
        part.gradient_memory = at::zeros({part.size}, options.dtype(at::kFloat));
        part.gradient = make_window(part.size, part.gradient_memory);
      }
      continue;
    }
    if (!part.compute.defined()) part.compute = make_window(part.size, weights_[0].memory);
    if (part.gradient_sum.defined()) part.gradient = make_window(part.size, gradients_[0].memory);
  }
}

LayerSharing::Part* LayerSharing::find(int64_t layer) {
  const bool is_there = 0 <= layer && layer < std::ssize(of_layer_) && of_layer_[layer] >= 0;
  return is_there ? &groups_[of_layer_[layer]] : nullptr;
}

// This rank's elements of a tensor of all.
at::Tensor LayerSharing::own(const at::Tensor& all) const {
  const Range part = ranks_.part(all.numel());
  return all.narrow(0, part.begin, part.size);
}

// In order of the calls, which is the same on every rank.
template <class Work>
DeviceEvent LayerSharing::beside(Work work) {
  at::NoGradGuard no_grad;
  last_.emplace(side_.run(work));
  return *last_;
}

LayerSharing::Buffer& LayerSharing::fetch(Part& part) {
  const int64_t group = &part - groups_.data();
  Buffer* buffer = nullptr;
  for (Buffer& each : weights_) {
    if (each.group == group) return each;
    const bool is_used = in_use_ && each.group == in_use_ - groups_.data();
    if (!is_used && (!buffer || each.last_use < buffer->last_use)) buffer = &each;
  }
  HALO_CHECK(buffer, "layer sharing: every buffer is in use");
  buffer->group = group;
  buffer->ready = beside([&] {
    const at::Tensor all = buffer->memory.narrow(0, 0, part.size);
    own(all).copy_(part.own_compute);
    ranks_.all_gather(all);
  });
  return *buffer;
}

void LayerSharing::begin_step(int64_t micro_batches) {
  micro_batches_left_ = micro_batches;
}

void LayerSharing::begin(bool recorded) {
  HALO_CHECK(micro_batches_left_ > 0, "layer sharing: a micro-batch more than the step has");
  --micro_batches_left_;
  is_recorded_ = recorded;
  if (recorded) settle();
  for (Part& part : groups_) {
    HALO_CHECK(part.gradient.defined() && !(recorded && fetches()),
               "layer sharing: begin of what is frozen, or recorded and fetched");
    if (recorded || part.layer >= 0) continue;
    if (part.given_out) part.given_out->hold_back();
    if (part.gradient_memory.defined()) point(part.gradient, part.gradient_memory);
  }
}

void LayerSharing::end() {
  for (Part& part : groups_) {
    if (!is_recorded_ && part.layer >= 0) continue;
    sum(part);
    if (part.gradient_memory.defined()) {
      rest_ready_ = beside([&] { part.gradient_memory.zero_(); });
    }
  }
  is_recorded_ = false;
}

// Takes a window's memory away.
void LayerSharing::sum(Part& part) {
  if (part.gradient_sum.defined()) {
    beside([&] {
      ranks_.reduce_scatter(part.gradient);
      part.gradient_sum.add_(own(part.gradient));
    });
    point(part.gradient, {});
  } else if (micro_batches_left_ == 0) {
    beside([&] { ranks_.reduce_scatter(part.gradient); });
  }
}

void LayerSharing::acquire(int64_t layer, int64_t next, bool gradient) {
  Part* part = find(layer);
  if (!part || is_recorded_) return;
  in_use_ = part;
  goes_back_ = gradient;
  if (part->own_compute.defined()) {
    Buffer& buffer = fetch(*part);
    buffer.last_use = ++uses_;
    buffer.ready->hold_back();
    point(part->compute, buffer.memory);
    if (Part* ahead = find(next)) fetch(*ahead);
  } else if (part->given_out) {
    part->given_out->hold_back();
  }
  if (!gradient || !part->gradient_sum.defined()) return;
  Buffer& buffer = gradients_[0].last_use < gradients_[1].last_use ? gradients_[0] : gradients_[1];
  buffer.last_use = ++uses_;
  buffer.group = part - groups_.data();
  if (buffer.ready) buffer.ready->hold_back();
  point(part->gradient, buffer.memory);
  at::NoGradGuard no_grad;
  part->gradient.zero_();
}

void LayerSharing::release(int64_t layer) {
  Part* part = find(layer);
  if (!part || is_recorded_) return;
  if (goes_back_) sum(*part);
  for (Buffer& buffer : gradients_) {
    if (buffer.group != part - groups_.data()) continue;
    buffer.ready = last_;
    buffer.group = -1;
  }
  if (part->own_compute.defined()) point(part->compute, {});
  in_use_ = nullptr;
  // The head comes next: the gradients of what belongs to no layer.
  if (layer + 1 == std::ssize(of_layer_) && rest_ready_) rest_ready_->hold_back();
}

void LayerSharing::give_out(size_t group) {
  Part& part = groups_[group];
  if (part.own_compute.defined() && part.layer >= 0) {
    for (Buffer& buffer : weights_) {
      if (buffer.group == static_cast<int64_t>(group)) buffer.group = -1;
    }
    return;
  }
  part.given_out = beside([&] {
    if (part.own_compute.defined()) own(part.compute).copy_(part.own_compute);
    ranks_.all_gather(part.compute);
  });
}

void LayerSharing::forget() {
  for (Buffer& buffer : weights_) buffer.group = -1;
}

void LayerSharing::settle() const {
  if (last_) last_->hold_back();
}

}  // namespace halo
