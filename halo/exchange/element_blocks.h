// The elements of a tensor in a file as numbers, block by block, for inspect and audit.
#pragma once

#include <functional>
#include <span>

#include "halo/formats/safetensors.h"

namespace halo {

// Elements [begin, end) of a tensor, in its order.
std::vector<double> read_elements(const TensorView& tensor, int64_t begin, int64_t end);

// Calls `use` on all elements in order, at most 2^20 at a time.
void for_each_block(const TensorView& tensor,
                    const std::function<void(std::span<const double>)>& use);
// The same over two tensors with one shape.
void for_each_block_pair(
    const TensorView& a, const TensorView& b,
    const std::function<void(std::span<const double>, std::span<const double>)>& use);

}  // namespace halo
