// Any bytes as a GGUF file: a model and a tokenizer, or one Error each.
#include "halo/base/check.h"
#include "halo/exchange/gguf_model.h"

namespace {

void read_model(const halo::Gguf& contents) {
  const halo::GgufModel model(contents, "fuzz");
  for (const halo::GgufWeight& weight : model.weights()) {
    const int64_t rows = weight.tensor->num_rows(), length = weight.tensor->row_length();
    std::vector<float> row(static_cast<size_t>(length));
    halo::read_rows(weight, 0, row);
    halo::read_rows(weight, rows - 1, row);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  halo::Gguf contents;
  try {
    contents = halo::parse_gguf(std::as_bytes(std::span(data, size)), "fuzz");
  } catch (const halo::ParseError&) {
    return 0;
  }
  for (const halo::GgufTensor& tensor : contents.tensors) {
    const auto block = halo::gguf_block(tensor.type);
    std::vector<float> values(tensor.bytes.size() / block.bytes * block.elements);
    halo::dequantize(tensor.type, tensor.bytes, values);
  }
  try {
    read_model(contents);
  } catch (const halo::Error&) {
  }
  try {
    halo::gguf_tokenizer(contents, "fuzz");
  } catch (const halo::Error&) {
  }
  return 0;
}
