// A ragged batch: S sequences laid end to end along the token axis, no padding.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace halo {

class Sequences {
 public:
  Sequences() = default;
  // offsets [S+1], offsets[0] = 0, ascending; sequence s is tokens offsets[s] .. offsets[s+1]-1. An
  // empty sequence is allowed. An Error where they are none.
  Sequences(std::vector<int64_t> offsets, at::Device device);
  // At most `count` sequences, whose offsets int32 [count+1] the device alone knows: their values
  // may change while a recorded graph goes on reading them (runtime/graph.h). None is longer than
  // max_length.
  Sequences(const at::Tensor& offsets_on_device, int64_t num_tokens, int64_t max_length);

  int64_t count() const { return count_; }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t max_length() const { return max_length_; }            // of the longest sequence, at least
  const at::Tensor& offsets_i32() const { return on_device_; }  // [S+1] int32 on the device
  bool known_to_host() const { return !on_host_.empty(); }
  const std::vector<int64_t>& offsets() const;  // an Error where the device alone knows them
  int64_t length(int64_t s) const { return offsets()[s + 1] - offsets()[s]; }

 private:
  std::vector<int64_t> on_host_;
  at::Tensor on_device_;
  int64_t count_ = 0, num_tokens_ = 0, max_length_ = 0;
};

// A host tensor's copy on `device`, in the order of the work given to it; the host does not wait.
at::Tensor to_device(const at::Tensor& x, at::Device device);

// Which form of an operation runs. kReference is plain and slow: a row's result does not depend on
// the other rows, on how a prompt was split, or on the thread count, bit for bit (CPU only).
enum class Kernels { kFast, kReference };

}  // namespace halo
