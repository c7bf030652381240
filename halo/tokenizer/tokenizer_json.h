// What of a Hugging Face tokenizer.json we support, checked: everything else is refused by name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "halo/tokenizer/bpe.h"
#include "halo/tokenizer/decode.h"
#include "halo/tokenizer/normalize.h"
#include "halo/tokenizer/pre_tokenize.h"

namespace halo {

struct AddedToken {
  std::string text;
  int32_t id;
  bool special;         // left out by decode(ids, skip_special)
  bool normalized;      // looked for in normalised text; otherwise in the text as given
  bool single_word;     // not beside a letter, digit or underscore
  bool lstrip, rstrip;  // takes the spaces before, after it

  bool operator==(const AddedToken&) const = default;
};

struct TokenizerFile {
  BpeModel model;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  // What the post-processor puts around a text.
  std::vector<int32_t> prefix, suffix;
  DecoderSteps decoder;
  std::vector<AddedToken> added_tokens;  // may be in the vocabulary as well
};

TokenizerFile parse_tokenizer_json(std::string_view text, const std::string& file);

}  // namespace halo
