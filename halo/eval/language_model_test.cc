#include "halo/eval/language_model.h"

#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/engine/generate.h"
#include "halo/eval/tasks/tasks_testing.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::LanguageModelFixture;

class LanguageModelTest : public LanguageModelFixture {
 protected:
  // What score() promises, from nothing and in fp64.
  Score plain_score(const std::string& prompt, const std::string& continuation) const {
    std::vector<int64_t> ids = tokenizer_.encode(prompt + continuation);
    const auto from = static_cast<int64_t>(tokenizer_.encode(prompt).size());
    const at::Tensor hidden = test::plain_decode(*weights_, ids, Kernels::kReference);
    const at::Tensor logits = halo::logits(*weights_, hidden, Kernels::kReference);
    const at::Tensor logprob = logits.to(at::kDouble).log_softmax(1);
    Score score;
    for (size_t t = static_cast<size_t>(from); t < ids.size(); ++t) {
      const auto before = static_cast<int64_t>(t) - 1;
      score.loglikelihood += logprob[before][ids[t]].item<double>();
      score.greedy &= logits[before].argmax().item<int64_t>() == ids[t];
    }
    return score;
  }

  const std::vector<ScoreRequest> requests_ = {
      {"one two three four five", " six"},  // prompts that are the same ...
      {"one two three four five", " seven nine"},
      {"one two three four five", " six ten"},
      {"one two three four six", " five"},  // ... that begin the same ...
      {"one two three", " four five six seven"},
      {"ten nine", " eight seven"},  // ... and that do not
      {"two", " one"},
  };
};

TEST_F(LanguageModelTest, ScoresAreThoseOfFullRecomputation) {
  // Prompts alone, shared, and batches of one request and of all.
  for (const int64_t min_shared : {1, 4, 1000}) {
    for (const int64_t batch : {1, 20, 8192}) {
      LanguageModel model = language_model({Kernels::kReference, 4, batch}, min_shared);
      const std::vector<Score> scores = model.score(requests_);
      ASSERT_EQ(scores.size(), requests_.size());
      for (size_t i = 0; i < requests_.size(); ++i) {
        const Score plain = plain_score(requests_[i].prompt, requests_[i].continuation);
        EXPECT_NEAR(scores[i].loglikelihood, plain.loglikelihood, 2e-6) << i;
        EXPECT_EQ(scores[i].greedy, plain.greedy) << i;
      }
    }
  }
}

TEST_F(LanguageModelTest, WhatGreedyDecodingWritesIsGreedy) {
  LanguageModel model = language_model();
  const std::string prompt = "one two three";
  const std::string text = model.generate_until({GenerateRequest{prompt, {}, 1}})[0];
  const std::vector<Score> scores =
      model.score({ScoreRequest{prompt, text}, ScoreRequest{prompt, text + text}});
  ASSERT_EQ(tokenizer_.encode(prompt + text).size(), tokenizer_.encode(prompt).size() + 1);
  EXPECT_TRUE(scores[0].greedy);
  EXPECT_EQ(scores[1].greedy, plain_score(prompt, text + text).greedy);
}

TEST_F(LanguageModelTest, SpaceAtThePromptsEndBelongsToTheContinuation) {
  LanguageModel model = language_model();
  const std::vector<Score> scores =
      model.score({ScoreRequest{"one two", " three"}, ScoreRequest{"one two ", "three"},
                   ScoreRequest{"one two \n", "three"}});
  EXPECT_EQ(scores[0].loglikelihood, scores[1].loglikelihood);
  EXPECT_NEAR(scores[2].loglikelihood, plain_score("one two", " \nthree").loglikelihood, 2e-6);
  // Without a prompt the continuation stands behind the token that begins a document.
  EXPECT_NEAR(model.score({ScoreRequest{"", "three"}})[0].loglikelihood,
              plain_score("<|endoftext|>", "three").loglikelihood, 2e-6);
  EXPECT_NE(test::error_of([&] {
              model.score({ScoreRequest{"one", ""}});
            }).find("no token of its own"),
            std::string::npos);
}

TEST_F(LanguageModelTest, TextsBeginWithOneBeginningOfText) {
  const LanguageModel model(weights_, Tokenizer(test::words_tokenizer(), "words"),
                            {kEndOfText, kEndOfText, {}}, {Kernels::kReference, 4, 64}, 4);
  std::vector<int64_t> expected = tokenizer_.encode("one two");
  expected.insert(expected.begin(), kEndOfText);
  EXPECT_EQ(model.encode("one two"), expected);
  EXPECT_EQ(model.encode("<|endoftext|>one two"), expected);
}

TEST_F(LanguageModelTest, TextEndsBeforeAStopAndAtTheLimit) {
  LanguageModel model = language_model();
  const std::vector<int64_t> prompt = tokenizer_.encode("one two");
  Scheduler scheduler(weights_, {.kernels = Kernels::kReference});
  const auto tokens = answer(scheduler, {{.prompt = prompt, .max_tokens = 12}})[0].tokens;
  const std::string all = tokenizer_.decode(tokens);
  const std::string stop = all.substr(all.size() / 2, 2);
  const std::vector<std::string> texts =
      model.generate_until({GenerateRequest{"one two", {}, 12}, GenerateRequest{"one two", {}, 5},
                            GenerateRequest{"one two", {"never", stop}, 12}});
  EXPECT_EQ(texts[0], all);
  EXPECT_EQ(texts[1], tokenizer_.decode(std::span(tokens).first(5)));
  EXPECT_EQ(texts[2], all.substr(0, all.find(stop)));
  EXPECT_TRUE(model.generate_until({}).empty());
}

}  // namespace
}  // namespace halo
