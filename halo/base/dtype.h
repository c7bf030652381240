// Element types of tensors in files and in memory.
#pragma once

#include <cstddef>
#include <string_view>

namespace halo {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

// Bytes of one element.
size_t dtype_size(DType dtype);
bool is_floating(DType dtype);
// The safetensors name: "F32", "BF16", "I64", ...
std::string_view dtype_name(DType dtype);

}  // namespace halo
