// What of a Hugging Face tokenizer.json we support, checked: everything else is refused by name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "halo/tokenizer/bpe.h"

namespace halo {

struct AddedToken {
  std::string text;
  int32_t id;
  bool special;     // left out by decode(ids, skip_special)
  bool normalized;  // looked for in normalised text; otherwise in the text as given
};

struct TokenizerFile {
  StringMap<int32_t> vocab;   // in the byte alphabet; without the added tokens that are not in it
  std::vector<Merge> merges;  // by rank
  bool ignore_merges = false;
  bool nfc = false;
  std::vector<AddedToken> added_tokens;
};

TokenizerFile parse_tokenizer_json(std::string_view text, const std::string& file);

}  // namespace halo
