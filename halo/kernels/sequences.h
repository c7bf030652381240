// A ragged batch: S sequences laid end to end along the token axis, no padding.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace halo {

struct Sequences {
  std::vector<int64_t> offsets;  // [S+1], offsets[0] = 0, ascending; sequence s is tokens
                                 // offsets[s] .. offsets[s+1]-1. An empty sequence is allowed.
  at::Tensor offsets_i32;        // [S+1] int32 on the batch's device
  int64_t max_length = 0;        // longest sequence

  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t num_tokens() const { return offsets.back(); }
  int64_t length(int64_t s) const { return offsets[s + 1] - offsets[s]; }
};

// A host tensor's copy on `device`, in the order of the work given to it; the host does not wait.
at::Tensor to_device(const at::Tensor& x, at::Device device);

Sequences make_sequences(std::vector<int64_t> offsets, at::Device device);

// Which form of an operation runs. kReference is plain and slow: a row's result does not depend on
// the other rows, on how a prompt was split, or on the thread count, bit for bit (CPU only).
enum class KernelForm { kFast, kReference };

}  // namespace halo
