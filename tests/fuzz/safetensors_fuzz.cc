// Any bytes as a safetensors file: tensors whose bytes are all there, or one Error.
#include "halo/base/check.h"
#include "halo/formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    std::map<std::string, std::string> metadata;
    unsigned sum = 0;
    for (const halo::TensorView& tensor :
         halo::parse_safetensors(std::as_bytes(std::span(data, size)), "fuzz", &metadata)) {
      HALO_CHECK(tensor.numel() * halo::dtype_size(tensor.dtype) == tensor.bytes.size(),
                 "numel of '{}'", tensor.name);
      for (const std::byte byte : tensor.bytes) sum += static_cast<unsigned>(byte);
    }
    if (sum == 1 && !metadata.empty()) return 0;  // reads must not be left out
  } catch (const halo::ParseError&) {
  }
  return 0;
}
