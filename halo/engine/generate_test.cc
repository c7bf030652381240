#include "halo/engine/generate.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "ATen/ATen.h"
#include "halo/base/options.h"
#include "halo/model/model_testing.h"

namespace halo {
namespace {

using test::random_tokens;

const EngineOptions kReference = {Kernels::kReference, 4, 16};

class GenerateTest : public testing::Test {
 protected:
  std::shared_ptr<const DecoderWeights> weights_ = test::random_model(test::hybrid_config());
  Engine engine_{weights_, kReference};
  std::vector<std::vector<int64_t>> prompts_ = {random_tokens(5, 1), random_tokens(1, 2),
                                                random_tokens(20, 3), random_tokens(2, 4)};

  // Logits [V] after `tokens`, computed from nothing.
  at::Tensor next_logits(const std::vector<int64_t>& tokens) const {
    const at::Tensor hidden = test::plain_decode(*weights_, tokens, Kernels::kReference);
    return logits(*weights_, hidden.slice(0, -1), Kernels::kReference)[0];
  }
};

TEST_F(GenerateTest, GreedyIsTheArgmaxOfFullRecomputation) {
  for (int64_t max_running : {1, 3, 100}) {
    const auto made = generate(engine_, prompts_, {.max_tokens = 6, .max_running = max_running});
    ASSERT_EQ(made.size(), prompts_.size());
    for (size_t p = 0; p < prompts_.size(); ++p) {
      std::vector<int64_t> tokens = prompts_[p];
      ASSERT_EQ(made[p].size(), 6u);
      for (int64_t token : made[p]) {
        EXPECT_EQ(token, next_logits(tokens).argmax().item<int64_t>());
        tokens.push_back(token);
      }
    }
    EXPECT_EQ(engine_.slots().num_used(), 0);
    EXPECT_EQ(engine_.blocks().num_used(), 0);
  }
}

TEST_F(GenerateTest, StepsShowTheLogitsOfEveryToken) {
  std::vector<int64_t> tokens = prompts_[0];
  int64_t steps = 0;
  generate(engine_, {prompts_[0]}, {.max_tokens = 3}, [&](const GenerateStep& step) {
    ++steps;
    EXPECT_EQ(step.prompts, std::vector<size_t>{0});
    EXPECT_TRUE(at::equal(step.logits[0], next_logits(tokens)));
    tokens.push_back(step.tokens[0]);
  });
  EXPECT_EQ(steps, 3);
}

TEST_F(GenerateTest, TheCallerMayEndAPrompt) {
  const auto all = generate(engine_, prompts_, {.max_tokens = 6});
  std::vector<int> asked(prompts_.size());
  GenerateArgs args{.max_tokens = 6};
  args.ended = [&](size_t prompt) { return ++asked[prompt] == 2 && prompt == 1; };
  const auto made = generate(engine_, prompts_, args);
  for (size_t p = 0; p < prompts_.size(); ++p) {
    const std::vector<int64_t> expected(all[p].begin(), all[p].begin() + (p == 1 ? 2 : 6));
    EXPECT_EQ(made[p], expected);
  }
}

TEST_F(GenerateTest, StopsAfterAStopTokenAndKeepsIt) {
  const auto all = generate(engine_, prompts_, {.max_tokens = 12});
  const int64_t stop = all[2][4];
  const auto made = generate(engine_, prompts_, {.max_tokens = 12, .stop_ids = {60, stop}});
  for (size_t p = 0; p < prompts_.size(); ++p) {
    std::vector<int64_t> expected;
    for (int64_t token : all[p]) {
      expected.push_back(token);
      if (token == stop || token == 60) break;
    }
    EXPECT_EQ(made[p], expected);
  }
}

TEST_F(GenerateTest, SamplesDependOnSeedAndStreamOnly) {
  GenerateArgs args = {.max_tokens = 8, .sample = {.temperature = 1}, .seed = 7};
  const auto together = generate(engine_, prompts_, args);
  args.max_running = 2;
  EXPECT_EQ(generate(engine_, prompts_, args), together);
  args.first_stream = 2;
  EXPECT_EQ(generate(engine_, {prompts_[2]}, args)[0], together[2]);
  args.seed = 8;
  EXPECT_NE(generate(engine_, {prompts_[2]}, args)[0], together[2]);
}

// 600 draws of the first token against the model's own distribution, by chi-square.
TEST_F(GenerateTest, SamplesFollowTheDistribution) {
  const GenerateArgs args = {.max_tokens = 1, .sample = {.temperature = 1}, .seed = 1};
  const auto made = generate(engine_, std::vector(600, prompts_[0]), args);
  const at::Tensor p = next_logits(prompts_[0]).softmax(0);
  std::vector<double> counts(61, 0.0);
  for (const auto& tokens : made) counts[tokens[0]] += 1;
  double chi2 = 0;
  for (int64_t v = 0; v < 61; ++v) {
    const double expected = 600 * p[v].item<double>();
    chi2 += (counts[v] - expected) * (counts[v] - expected) / expected;
  }
  // Mean 60, variance 120 + sum(1/(600 p)) for small cells: six standard deviations and more.
  const double variance = 120 + p.reciprocal().sum().item<double>() / 600;
  EXPECT_LT(chi2, 60 + 6 * std::sqrt(variance));
}

// One more option is one more line of settings().
struct MoreArgs : GenerateArgs {
  double made_up = 0;
  void settings(Settings& s) {
    GenerateArgs::settings(s);
    s("made_up", made_up, {.help = "of this test", .max = 2});
  }
};

TEST(GenerateArgs, ASettingIsAnOption) {
  MoreArgs args;
  CLI::App app;
  add_options(app, args);
  for (const Setting& setting : settings_of(args).all()) {
    EXPECT_NE(app.get_option_no_throw(option_name(setting)), nullptr) << setting.key;
  }
  app.parse("--made-up 1.5 --top-k 3");
  EXPECT_EQ(args.made_up, 1.5);
  EXPECT_EQ(args.sample.top_k, 3);
}

}  // namespace
}  // namespace halo
