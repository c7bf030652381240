// The values that a rank's store keeps, as a checkpoint is written from them: as they are, or as a
// copy on the host beside which the training goes on.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <functional>
#include <vector>

#include "halo/model/parameters.h"
#include "halo/runtime/side_stream.h"

namespace halo {

// A range of master(), or what stands at its places in another arena, as a contiguous tensor [size]
// on the CPU.
using ReadKept = std::function<at::Tensor(const Range& range)>;

struct KeptValues {
  ReadKept master, moment1, moment2;  // fp32
  ReadKept compute;                   // masters in the compute type
};

// As they are when they are read. `store` must outlive them.
KeptValues values_of(ParameterStore& store);

// Memory of the host for a copy of them, page-locked where they come from a GPU: 12 bytes an
// element, and one of the compute type where that is another than fp32.
class KeptCopy {
 public:
  // In blocks of so many bytes: LibTorch rounds page-locked memory up to a power of two. `store`
  // must outlive this.
  explicit KeptCopy(ParameterStore& store, int64_t block_bytes = int64_t{1} << 28);
  KeptCopy(const KeptCopy&) = delete;

  // Copies them, on a GPU beside what it computes: until the event has passed the store must stay
  // as it is. None of values() may be in use.
  DeviceEvent take();
  // Of the last take(). Read by any thread, without the device.
  KeptValues values() const;

 private:
  // A flat tensor in blocks.
  class HostArena {
   public:
    HostArena(int64_t size, at::TensorOptions options, int64_t block_bytes);
    void copy(const at::Tensor& values, int64_t begin);
    at::Tensor read(const Range& range) const;

   private:
    // Calls `visit` with what each block has of the range and how much of it came before.
    template <class Visit>
    void visit(const Range& range, Visit visit) const;

    int64_t block_size_;  // elements
    std::vector<at::Tensor> blocks_;
  };

  ParameterStore& store_;
  SideStream side_;
  HostArena master_, moment1_, moment2_, compute_;
};

}  // namespace halo
