// A small tokenizer for the tests of this part.
#pragma once

#include <string>

#include "halo/base/files.h"
#include "halo/tokenizer/tokenizer.h"
#include "tests/testing.h"

namespace halo::test {

inline const std::string& tokenizer_json() {
  static const std::string text = train_bpe(
      {"the secret number of the rain is in the plain, and what is the number of the secret rain? "
       "The rain in the plain is plain. What is that? The secret is in the number of the rain."},
      290, {"<|endoftext|>", "<|im_start|>"});
  return text;
}

inline const Tokenizer& tokenizer() {
  static const Tokenizer made(tokenizer_json(), "tokenizer.json");
  return made;
}

}  // namespace halo::test
