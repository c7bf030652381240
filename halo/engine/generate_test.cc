#include "halo/engine/generate.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/options.h"
#include "halo/model/model_testing.h"

namespace halo {
namespace {

using test::random_tokens;

class AnswerTest : public testing::Test {
 protected:
  std::shared_ptr<const DecoderWeights> weights_ = test::random_model(test::hybrid_config());
  Scheduler scheduler_{weights_, {.kernels = Kernels::kReference, .block_size = 4}};
};

TEST_F(AnswerTest, AnswersComeInTheOrderOfTheirRequests) {
  std::vector<Request> requests;
  std::vector<int> heard(4);
  int ends = 0;
  for (int64_t i = 0; i < 4; ++i) {
    Request request{.prompt = random_tokens(9 - 2 * i, i), .max_tokens = 2 + i};
    request.on_token = [&heard, i](const TokenEvent&) { return ++heard[i] < 3; };
    request.on_finish = [&ends](const Finish&) { ++ends; };
    requests.push_back(std::move(request));
  }
  const std::vector<Answer> answers = answer(scheduler_, requests);
  EXPECT_EQ(heard, (std::vector<int>{2, 3, 3, 3}));
  EXPECT_EQ(ends, 4);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(std::ssize(answers[i].tokens), heard[i]);
    EXPECT_EQ(answers[i].finish.prompt_tokens, std::ssize(requests[i].prompt));
  }
  EXPECT_TRUE(answer(scheduler_, {}).empty());
}

TEST_F(AnswerTest, AnErrorIsThrownWhenAllHaveEnded) {
  Request bad{.prompt = {1, 2}, .max_tokens = 5};
  bad.on_token = [](const TokenEvent&) -> bool { throw Error("enough"); };
  Request good{.prompt = {1, 2}, .max_tokens = 5};
  int tokens = 0;
  good.on_token = [&](const TokenEvent&) { return ++tokens > 0; };
  EXPECT_THROW(answer(scheduler_, {bad, good}), Error);
  EXPECT_EQ(tokens, 5);
}

// 600 draws of the first token against the model's own distribution, by chi-square.
TEST_F(AnswerTest, SamplesFollowTheDistribution) {
  const std::vector<int64_t> prompt = random_tokens(5, 1);
  std::vector<Request> requests;
  for (int64_t i = 0; i < 600; ++i) {
    requests.push_back(
        {.prompt = prompt, .max_tokens = 1, .sample = {.temperature = 1}, .seed = 1, .stream = i});
  }
  const at::Tensor hidden = test::plain_decode(*weights_, prompt, Kernels::kReference);
  const at::Tensor p = logits(*weights_, hidden.slice(0, -1), Kernels::kReference)[0].softmax(0);
  std::vector<double> counts(61, 0.0);
  for (const Answer& out : answer(scheduler_, requests)) counts[out.tokens[0]] += 1;
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
