#include "halo/engine/pool.h"

#include <sys/mman.h>

#include "ATen/ATen.h"
#include "halo/base/check.h"

namespace halo {

at::Tensor zero_pool(at::IntArrayRef shape, const at::TensorOptions& options) {
  const auto bytes = static_cast<size_t>(c10::multiply_integers(shape)) *
                     c10::elementSize(c10::typeMetaToScalarType(options.dtype()));
  if (options.device().is_cuda() || bytes == 0) return at::zeros(shape, options);
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) {
    throw_error("no memory for a pool of {:.1f} GB of keys, values or states; give it less",
                static_cast<double>(bytes) / 1e9);
  }
  return at::from_blob(
      pages, shape, [bytes](void* at) { munmap(at, bytes); }, options);
}

}  // namespace halo
