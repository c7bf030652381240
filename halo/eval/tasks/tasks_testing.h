// A small model that reads and writes text, and files of items, for tests of tasks.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "halo/base/files.h"
#include "halo/eval/language_model.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo::test {

inline std::string words_tokenizer() {
  std::string text;
  for (const char* word :
       {" one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten"}) {
    for (int i = 0; i < 20; ++i) text += word;
  }
  return train_bpe({text}, 280, {"<|endoftext|>"});
}

class LanguageModelFixture : public testing::Test {
 protected:
  static ModelConfig config() {
    ModelConfig config = hybrid_config();
    config.vocab_size = 280;
    return config;
  }

  static constexpr int64_t kEndOfText = 279;  // <|endoftext|>
  inline static const SpecialTokens kSpecial = {std::nullopt, kEndOfText, {}};

  LanguageModel language_model(const EngineOptions& options = {Kernels::kReference, 4, 64},
                               int64_t min_shared = 4) const {
    return {weights_, Tokenizer(words_tokenizer(), "words"), kSpecial, options, min_shared};
  }

  std::shared_ptr<const DecoderWeights> weights_ = random_model(config());
  Tokenizer tokenizer_{words_tokenizer(), "words"};
};

}  // namespace halo::test
