// Any bytes as a tokenizer.json: a Tokenizer, or one Error.
#include <string_view>

#include "halo/base/check.h"
#include "halo/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const halo::Tokenizer tokenizer(text, "fuzz");
    tokenizer.decode(tokenizer.encode("It's 12 o'clock:\n\n  ready?"));
  } catch (const halo::Error&) {
  }
  return 0;
}
