// Any bytes as a chat template: parsed, or one Error.
#include <string_view>

#include "halo/base/check.h"
#include "halo/chat/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const halo::ChatTemplate chat({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const halo::Error&) {
  }
  return 0;
}
