// Any ids, two bytes each: all at once and as a stream, which must give the same and never part of
// a character.
#include "halo/base/check.h"
#include "halo/base/utf8.h"
#include "tests/fuzz/tokenizers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace halo;
  if (size == 0) return 0;
  const Tokenizer& tokenizer = fuzz::choose(data[0] / 2).tokenizer;
  const bool skip_special = data[0] % 2 != 0;
  std::vector<int64_t> ids;
  for (size_t i = 1; i + 1 < size; i += 2) ids.push_back((data[i] | data[i + 1] << 8) % 300 - 2);
  StreamDecoder stream(tokenizer, skip_special);
  std::string streamed;
  for (const int64_t id : ids) {
    const std::string text = stream.push(id);
    fuzz::require(valid_utf8_prefix(text) == text.size());
    streamed += text;
  }
  streamed += stream.finish();
  fuzz::require(streamed == tokenizer.decode(ids, skip_special));
  return 0;
}
