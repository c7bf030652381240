// Any bytes as text, for tokenizers of every kind: ids, and back.
#include "halo/base/check.h"
#include "halo/base/utf8.h"
#include "tests/fuzz/tokenizers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace halo;
  if (size == 0) return 0;
  const auto& [tokenizer, lossless] = fuzz::choose(data[0]);
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::vector<int64_t> ids;
  try {
    ids = tokenizer.encode(text);
  } catch (const Error&) {  // a pattern that would backtrack too long
    return 0;
  }
  for (const int64_t id : ids) fuzz::require(id >= 0 && id < tokenizer.vocab_size());
  const std::string decoded = tokenizer.decode(ids);
  fuzz::require(!lossless || decoded == replace_invalid_utf8(text));
  fuzz::require(valid_utf8_prefix(decoded) == decoded.size());
  fuzz::require(tokenizer.encode(text) == ids);  // now with a full cache
  return 0;
}
