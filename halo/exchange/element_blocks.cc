#include "halo/exchange/element_blocks.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/model/parameters.h"

namespace halo {
namespace {

constexpr int64_t kBlock = int64_t{1} << 20;

}  // namespace

std::vector<double> read_elements(const TensorView& tensor, int64_t begin, int64_t end) {
  const std::byte* data =
      tensor.bytes.data() + static_cast<size_t>(begin) * dtype_size(tensor.dtype);
  const at::Tensor numbers = at::from_blob(const_cast<std::byte*>(data), {end - begin},
                                           at::TensorOptions().dtype(to_scalar_type(tensor.dtype)))
                                 .to(at::kDouble);
  const auto* first = numbers.const_data_ptr<double>();
  return {first, first + numbers.numel()};
}

void for_each_block(const TensorView& tensor,
                    const std::function<void(std::span<const double>)>& use) {
  const int64_t numel = tensor.numel();
  for (int64_t begin = 0; begin < numel; begin += kBlock)
    use(read_elements(tensor, begin, std::min(numel, begin + kBlock)));
}

void for_each_block_pair(
    const TensorView& a, const TensorView& b,
    const std::function<void(std::span<const double>, std::span<const double>)>& use) {
  HALO_CHECK(a.shape == b.shape, "for_each_block_pair: '{}' has another shape than '{}'", a.name,
             b.name);
  const int64_t numel = a.numel();
  for (int64_t begin = 0; begin < numel; begin += kBlock) {
    const int64_t end = std::min(numel, begin + kBlock);
    use(read_elements(a, begin, end), read_elements(b, begin, end));
  }
}

}  // namespace halo
