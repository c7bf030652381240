// What is reused, what is said of it, and that no token changes by it.
#include <gtest/gtest.h>

#include <future>
#include <map>
#include <thread>

#include "ATen/ATen.h"
#include "halo/base/random.h"
#include "halo/engine/generate.h"
#include "halo/model/model_testing.h"

namespace halo {
namespace {

using test::random_tokens;

std::vector<int64_t> joined(std::vector<int64_t> a, const std::vector<int64_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class PrefixTest : public testing::TestWithParam<bool> {
 protected:
  static SchedulerOptions options() {
    return {.kernels = Kernels::kReference,
            .max_running = 8,
            .prefill_chunk = 7,
            .block_size = 4,
            .min_reused = 3,
            .snapshot_spacing = 1000};
  }
  // Without reuse, from nothing; remembered.
  const std::vector<int64_t>& plain(const std::vector<int64_t>& prompt) {
    auto& known = plain_[prompt];
    if (known.empty()) {
      Scheduler scheduler(weights_, {.kernels = Kernels::kReference, .reuse_prefixes = false});
      known = answer(scheduler, {{.prompt = prompt, .max_tokens = kTokens}})[0].tokens;
    }
    return known;
  }
  Answer ask(Scheduler& scheduler, const std::vector<int64_t>& prompt, uint64_t salt = 0) {
    Answer said = answer(scheduler, {{.prompt = prompt, .max_tokens = kTokens, .salt = salt}})[0];
    EXPECT_EQ(said.tokens, plain(prompt));
    return said;
  }

  static constexpr int64_t kTokens = 5;
  const bool hybrid_ = GetParam();
  std::shared_ptr<const DecoderWeights> weights_ =
      test::random_model(hybrid_ ? test::hybrid_config() : test::transformer_config());
  std::map<std::vector<int64_t>, std::vector<int64_t>> plain_;
};

INSTANTIATE_TEST_SUITE_P(, PrefixTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Hybrid" : "Transformer"; });

TEST_P(PrefixTest, PromptsAndAnswersAreContinued) {
  Scheduler scheduler(weights_, options());
  const std::vector<int64_t> prompt = random_tokens(21, 1);
  const Answer first = ask(scheduler, prompt);
  EXPECT_EQ(first.finish.cached_tokens, 0);
  EXPECT_EQ(first.finish.cache_miss_reason, "nothing that is kept begins with its first token");
  // All of it, with the logits after it: nothing is computed but the answer.
  const int64_t computed = scheduler.stats().prompt_tokens;
  EXPECT_EQ(ask(scheduler, prompt).finish.cached_tokens, 21);
  EXPECT_EQ(scheduler.stats().prompt_tokens, computed);
  // A conversation goes on behind the answer, but for its last token, which was not fed.
  const std::vector<int64_t> longer = joined(joined(prompt, first.tokens), random_tokens(6, 2));
  const Answer next = ask(scheduler, longer);
  EXPECT_EQ(next.finish.cached_tokens, 25);
  EXPECT_EQ(next.finish.cache_miss_reason, "");
  // The answer is edited: behind the prompt.
  const std::vector<int64_t> edited = joined(prompt, random_tokens(8, 3));
  EXPECT_EQ(ask(scheduler, edited).finish.cached_tokens, 21);
  EXPECT_EQ(scheduler.stats().reused_tokens, 21 + 25 + 21);
  scheduler.forget_prefixes();
  EXPECT_EQ(ask(scheduler, prompt).finish.cached_tokens, 0);
}

TEST_P(PrefixTest, WherePromptsPartTheThirdBegins) {
  Scheduler scheduler(weights_, options());
  const std::vector<int64_t> shared = random_tokens(10, 1);
  ask(scheduler, joined(shared, {1, 2, 3, 4, 5}));
  const Answer second = ask(scheduler, joined(shared, {2, 2, 3, 4, 5}));
  if (hybrid_) {
    EXPECT_EQ(second.finish.cached_tokens, 0);
    EXPECT_EQ(second.finish.cache_miss_reason,
              "what is kept shares its first 10 tokens, but has no state there");
  } else {
    EXPECT_EQ(second.finish.cached_tokens, 10);
  }
  EXPECT_EQ(ask(scheduler, joined(shared, {3, 2, 3, 4, 5})).finish.cached_tokens, 10);
}

TEST_P(PrefixTest, SnapshotsAreAlsoTakenEverySoManyTokens) {
  SchedulerOptions options = this->options();
  options.snapshot_spacing = 8;
  Scheduler scheduler(weights_, options);
  const std::vector<int64_t> shared = random_tokens(30, 1);
  ask(scheduler, joined(shared, {1, 2, 3, 4, 5}));
  EXPECT_EQ(ask(scheduler, joined(shared, {2, 2})).finish.cached_tokens, hybrid_ ? 24 : 30);
}

TEST_P(PrefixTest, ACancelledPromptGoesOnWhereItWas) {
  Scheduler scheduler(weights_, options());
  const std::vector<int64_t> prompt = random_tokens(50, 1);
  const RequestId id = scheduler.submit({.prompt = prompt, .max_tokens = kTokens});
  for (int i = 0; i < 3; ++i) scheduler.step();
  scheduler.cancel(id);
  scheduler.drain();
  EXPECT_EQ(ask(scheduler, prompt).finish.cached_tokens, 21);
}

TEST_P(PrefixTest, OtherSaltsShareNothing) {
  Scheduler scheduler(weights_, options());
  const std::vector<int64_t> prompt = random_tokens(15, 1);
  ask(scheduler, prompt);
  EXPECT_EQ(ask(scheduler, prompt, 7).finish.cached_tokens, 0);
  EXPECT_EQ(ask(scheduler, prompt, 7).finish.cached_tokens, 15);
}

TEST_P(PrefixTest, RequestsThatComeTogetherComputeWhatTheyShareOnce) {
  Scheduler scheduler(weights_, options());
  const std::vector<int64_t> prompt = random_tokens(33, 1);
  std::vector<Request> requests(4, {.prompt = prompt, .max_tokens = kTokens});
  requests.push_back({.prompt = joined(prompt, {1, 2}), .max_tokens = kTokens});
  std::vector<int64_t> parted(prompt.begin(), prompt.begin() + 20);
  requests.push_back({.prompt = joined(parted, {1, 2}), .max_tokens = kTokens});
  const std::vector<Answer> answers = answer(scheduler, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(answers[i].tokens, plain(requests[i].prompt)) << i;
  }
  EXPECT_EQ(scheduler.stats().prompt_tokens, 33 + 2 + 2);
  EXPECT_EQ(answers[3].finish.cached_tokens, 33);
  EXPECT_EQ(answers[5].finish.cached_tokens, 20);
}

TEST_P(PrefixTest, ScoresBehindAPrefixReuseIt) {
  Scheduler scheduler(weights_, options());
  const std::vector<int64_t> prompt = random_tokens(20, 1);
  std::vector<double> first, second;
  const auto score = [&](int64_t from, std::vector<double>& out) {
    Request request{
        .prompt = prompt, .max_tokens = 0, .prompt_logprobs = 0, .prompt_logprobs_from = from};
    request.on_prompt_tokens = [&](std::span<const TokenEvent> events) {
      for (const TokenEvent& event : events) out.push_back(event.logprob);
    };
    return answer(scheduler, {request})[0].finish;
  };
  EXPECT_EQ(score(1, first).cached_tokens, 0);
  ASSERT_EQ(first.size(), 19u);
  ask(scheduler, {prompt.begin(), prompt.begin() + 12});
  EXPECT_EQ(score(13, second).cached_tokens, 12);
  EXPECT_EQ(second, std::vector(first.begin() + 12, first.end()));
  EXPECT_EQ(score(1, second).cache_miss_reason,
            "log-probabilities of the prompt are asked from its beginning on");
}

// Thousands of requests of one family of prompts, in memory for a few of them, cancelled at random.
TEST_P(PrefixTest, RandomHistoriesChangeNoToken) {
  const Random random(11, "prefix test");
  uint64_t draws = 0;
  const auto below = [&](int64_t n) { return random.below(draws++, n); };
  const StateBytes bytes = state_bytes(*weights_, 4, KvType::kComputed);
  int64_t whole = 0, reused = 0, preempted = 0;
  for (int round = 0; round < 12; ++round) {
    SchedulerOptions options = this->options();
    options.max_running = 1 + below(6);
    options.prefill_chunk = 1 + below(20);
    options.snapshot_spacing = 4 + below(20);
    const int64_t slots = 1 + below(8);
    options.memory_bytes =
        (12 + below(30)) * bytes.block + slots * bytes.slot + (hybrid_ ? slots * bytes.slot : 0);
    Scheduler scheduler(weights_, options);
    std::vector<RequestId> ids;
    for (int i = 0; i < 250; ++i) {
      // Few tokens at few places, so that many begin the same.
      std::vector<int64_t> prompt;
      for (const int64_t parts = 1 + below(4); std::ssize(prompt) < 7 * parts;) {
        prompt = joined(std::move(prompt), random_tokens(7, static_cast<uint64_t>(below(2))));
      }
      prompt.resize(static_cast<size_t>(1 + below(std::ssize(prompt))));
      Request request{.prompt = prompt, .max_tokens = kTokens, .priority = below(2)};
      auto made = std::make_shared<std::vector<int64_t>>();
      request.on_token = [made](const TokenEvent& event) {
        made->push_back(event.token);
        return true;
      };
      request.on_finish = [&, made, prompt](const Finish& finish) {
        ASSERT_TRUE(finish.error.empty()) << finish.error;
        const auto& expected = plain(prompt);
        ASSERT_TRUE(std::equal(made->begin(), made->end(), expected.begin()));
        whole += finish.reason == Finish::Reason::kLength;
        EXPECT_TRUE((finish.cached_tokens == 0) != finish.cache_miss_reason.empty() ||
                    finish.reason == Finish::Reason::kCancelled);
      };
      ids.push_back(scheduler.submit(std::move(request)));
      for (int64_t steps = below(4); steps > 0; --steps) scheduler.step();
      if (below(5) == 0) scheduler.cancel(ids[static_cast<size_t>(below(std::ssize(ids)))]);
      if (below(100) == 0) scheduler.forget_prefixes();
    }
    scheduler.drain();
    reused += scheduler.stats().reused_tokens;
    preempted += scheduler.stats().preemptions;
    scheduler.forget_prefixes();
    EXPECT_EQ(scheduler.stats().blocks_used, 0);
    EXPECT_EQ(scheduler.stats().slots_used, 0);
    EXPECT_EQ(scheduler.stats().running + scheduler.stats().queued, 0);
  }
  EXPECT_GT(whole, 2000);
  EXPECT_GT(reused, 5000);
  EXPECT_GT(preempted, 10);
}

TEST_P(PrefixTest, WorkIsDoneByTheThreadThatDrives) {
  Scheduler scheduler(weights_, options());
  std::promise<std::thread::id> done;
  std::jthread driver([&](const std::stop_token& stop) { scheduler.run(stop); });
  scheduler.do_between_steps([&] { done.set_value(std::this_thread::get_id()); });
  EXPECT_EQ(done.get_future().get(), driver.get_id());
}

}  // namespace
}  // namespace halo
