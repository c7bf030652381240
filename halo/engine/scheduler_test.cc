#include "halo/engine/scheduler.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <thread>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/engine/scheduler_testing.h"

namespace halo {
namespace {

using test::expect_all_free;
using test::memory_of;
using test::plain_answer;
using test::random_tokens;
using test::SchedulerTest;
using test::watched;
using Answer = test::WatchedAnswer;
using Case = test::SchedulerCase;
using Reason = Finish::Reason;

INSTANTIATE_TEST_SUITE_P(, SchedulerTest,
                         testing::Values(Case{false, false}, Case{false, true}, Case{true, false},
                                         Case{true, true}, Case{true, true, true},
                                         Case{false, true, true}, Case{true, true, false, true},
                                         Case{false, false, true, true}),
                         [](const auto& info) {
                           return fmt::format("{}{}{}{}",
                                              info.param.hybrid ? "Hybrid" : "Transformer",
                                              info.param.reuse ? "Reuse" : "",
                                              info.param.tells_beside ? "TellsBeside" : "",
                                              info.param.by_layers ? "ByLayers" : "");
                         });

TEST_P(SchedulerTest, TokensAreThoseOfRecomputation) {
  const std::vector<Request> all = requests();
  for (const int64_t max_running : {1, 3, 64}) {
    for (const int64_t chunk : {1, 5, 16, 1000}) {
      SchedulerOptions options = small_options();
      options.max_running = max_running;
      options.prefill_chunk = chunk;
      SCOPED_TRACE(testing::Message() << max_running << " running, chunks of " << chunk);
      expect_plain(all, run(options, all));
    }
  }
}

TEST_P(SchedulerTest, GivesWayAndComesBackWhereMemoryEnds) {
  const std::vector<Request> all = requests();
  SchedulerOptions options = small_options();
  options.max_running = 2;
  for (const int64_t blocks : {9, 12, 20}) {
    options.memory_bytes = memory_of(*weights_, blocks, 2);
    expect_plain(all, run(options, all));
  }
  // Two that fit when they begin, and not when they end.
  std::vector<Request> growing(2);
  for (int64_t i = 0; i < 2; ++i) {
    growing[i] = {.prompt = {i + 1, 2, 3}, .max_tokens = 20, .sample = {.temperature = 1}};
  }
  options.memory_bytes = memory_of(*weights_, 8, 2);
  SchedulerStats stats;
  expect_plain(growing, run(options, growing, &stats));
  EXPECT_GT(stats.preemptions, 0);
}

TEST_P(SchedulerTest, EndsAtEndTokensCallersAndLimits) {
  Request request;
  request.prompt = random_tokens(6, 3);
  request.max_tokens = 12;
  const std::vector<int64_t> all = plain_answer(*weights_, request);
  Scheduler scheduler(weights_, small_options());
  Answer stopped, refused, limited, limited_too, scored;

  Request by_token = watched(request, stopped);
  by_token.stop_ids = {60, all[5]};
  scheduler.submit(by_token);
  Request by_caller = watched(request, refused);
  by_caller.on_token = [&](const TokenEvent& event) {
    refused.tokens.push_back(event.token);
    return refused.tokens.size() < 3;
  };
  scheduler.submit(by_caller);
  Request by_context = watched(request, limited);
  by_context.context = 10;
  scheduler.submit(by_context);
  by_context = watched(request, limited_too);
  by_context.context = 10;
  by_context.max_tokens = {};
  scheduler.submit(by_context);
  Request none = watched(request, scored);
  none.max_tokens = 0;
  scheduler.submit(none);
  scheduler.drain();
  expect_all_free(scheduler);

  const auto first = static_cast<size_t>(
      std::ranges::find_if(all, [&](int64_t token) { return token == 60 || token == all[5]; }) -
      all.begin());
  const auto part = [&](size_t n) { return std::vector(all.begin(), all.begin() + n); };
  EXPECT_EQ(stopped.tokens, part(first));
  EXPECT_EQ(stopped.finish.reason, Reason::kStop);
  EXPECT_EQ(stopped.finish.end_token, all[first]);
  EXPECT_EQ(stopped.finish.completion_tokens, std::ssize(stopped.tokens) + 1);
  EXPECT_EQ(refused.tokens, part(3));
  EXPECT_EQ(refused.finish.reason, Reason::kStop);
  EXPECT_FALSE(refused.finish.end_token.has_value());
  EXPECT_EQ(limited.tokens, part(4));
  EXPECT_EQ(limited.finish.reason, Reason::kLength);
  EXPECT_EQ(limited_too.tokens, part(4));
  EXPECT_TRUE(scored.tokens.empty());
  EXPECT_EQ(scored.finish.reason, Reason::kLength);
  EXPECT_EQ(scored.ends, 1);
}

TEST_P(SchedulerTest, LogprobsOfPromptAndAnswer) {
  Request request;
  request.prompt = random_tokens(23, 3);
  request.max_tokens = 4;
  request.top_logprobs = 3;
  request.prompt_logprobs = 2;
  request.prompt_logprobs_from = 5;
  request.sample = {.presence_penalty = 100};  // does not change what is reported
  Answer answer;
  Scheduler scheduler(weights_, small_options());
  scheduler.submit(watched(request, answer));
  scheduler.drain();

  std::vector<int64_t> tokens = request.prompt;
  tokens.insert(tokens.end(), answer.tokens.begin(), answer.tokens.end());
  const at::Tensor hidden = test::plain_decode(*weights_, tokens, Kernels::kReference);
  const at::Tensor expected =
      logits(*weights_, hidden, Kernels::kReference).to(at::kDouble).log_softmax(1);
  std::vector<TokenEvent> events = answer.prompt_events;
  ASSERT_EQ(events.size(), 18u);
  events.insert(events.end(), answer.events.begin(), answer.events.end());
  for (size_t i = 0; i < events.size(); ++i) {
    const auto position = static_cast<int64_t>(i) + 5;
    const at::Tensor row = expected[position - 1];
    EXPECT_EQ(events[i].token, tokens[position]);
    EXPECT_NEAR(events[i].logprob, row[tokens[position]].item<double>(), 1e-5);
    ASSERT_EQ(events[i].top.size(), i < 18 ? 2u : 3u);
    EXPECT_EQ(events[i].top[0].token, row.argmax().item<int64_t>());
    EXPECT_NEAR(events[i].top[1].logprob, std::get<0>(row.topk(2))[1].item<double>(), 1e-5);
  }
}

// Odd tokens alone, greedy and drawn, beside requests without a mask: as if the model gave the
// others no chance.
TEST_P(SchedulerTest, ARequestMayAllowSomeTokensAlone) {
  const auto odd_ones = [](std::span<uint32_t> allowed) {
    for (uint32_t& word : allowed) word &= 0xAAAAAAAA;
  };
  Request request;
  request.prompt = random_tokens(6, 3);
  request.max_tokens = 5;
  std::vector<Answer> answers(4);
  Answer none;
  Scheduler scheduler(weights_, small_options());
  std::vector<Request> asked(4, request);
  for (size_t i = 0; i < asked.size(); ++i) {
    if (i >= 2) asked[i].sample = {.temperature = 3, .repetition_penalty = 1.5};
    if (i % 2 == 1) {
      asked[i].on_mask = odd_ones;
      for (int64_t token = 0; token < weights_->embedding.value.size(0); token += 2) {
        asked[i].sample.logit_bias.push_back({token, 90});
      }
    }
    scheduler.submit(watched(asked[i], answers[i]));
  }
  Request closed = watched(request, none);
  closed.on_mask = [](std::span<uint32_t> allowed) { std::ranges::fill(allowed, 0); };
  scheduler.submit(closed);
  scheduler.drain();
  for (size_t i = 0; i < asked.size(); ++i) {
    for (auto& [token, bias] : asked[i].sample.logit_bias)
      bias = -std::numeric_limits<double>::infinity();
    EXPECT_EQ(answers[i].tokens, plain_answer(*weights_, asked[i])) << i;
    if (i % 2 == 0) continue;
    for (const int64_t token : answers[i].tokens) EXPECT_EQ(token % 2, 1);
  }
  EXPECT_EQ(none.finish.reason, Reason::kError);
  EXPECT_EQ(none.finish.error, "the model's logits after 6 tokens leave no token to choose");
  expect_all_free(scheduler);
}

// A mask that depends on what came so far says the same after a request gave way.
TEST_P(SchedulerTest, AMaskFollowsTheTokensThroughPreemption) {
  constexpr int64_t kCount = 20;
  const auto run = [&](const SchedulerOptions& options, int64_t* preemptions) {
    Scheduler scheduler(weights_, options);
    std::vector<Answer> answers(5);
    std::vector<int64_t> seen(answers.size(), 0);
    for (size_t i = 0; i < answers.size(); ++i) {
      Request request;
      request.prompt = random_tokens(3, static_cast<int64_t>(i));
      request.max_tokens = kCount;
      request.stream = static_cast<int64_t>(i);
      request.sample.temperature = 2;
      request = watched(request, answers[i]);
      // Token t of the answer is t modulo 3.
      request.on_mask = [&seen, i](std::span<uint32_t> allowed) {
        for (size_t token = 0; token < allowed.size() * 32; ++token) {
          if (static_cast<int64_t>(token) % 3 != seen[i] % 3)
            allowed[token / 32] &= ~(uint32_t{1} << token % 32);
        }
      };
      request.on_token = [&seen, i, then = request.on_token](const TokenEvent& event) {
        ++seen[i];
        return then(event);
      };
      scheduler.submit(request);
    }
    scheduler.drain();
    *preemptions = scheduler.stats().preemptions;
    expect_all_free(scheduler);
    std::vector<std::vector<int64_t>> tokens;
    for (const Answer& answer : answers) {
      EXPECT_EQ(std::ssize(answer.tokens), kCount);
      for (size_t t = 0; t < answer.tokens.size(); ++t)
        EXPECT_EQ(answer.tokens[t] % 3, static_cast<int64_t>(t % 3));
      tokens.push_back(answer.tokens);
    }
    return tokens;
  };
  int64_t none = 0, some = 0;
  SchedulerOptions tight = small_options();
  tight.max_running = 2;
  tight.memory_bytes = memory_of(*weights_, 8, 2);
  EXPECT_EQ(run(small_options(), &none), run(tight, &some));
  EXPECT_EQ(none, 0);
  EXPECT_GT(some, 0);
}

// Whoever throws or has a token whose embedding is NaN ends alone.
TEST_P(SchedulerTest, AnErrorEndsItsOwnRequest) {
  DecoderWeights broken = *weights_;
  broken.embedding.value = broken.embedding.value.clone();
  broken.embedding.value[7].fill_(std::numeric_limits<float>::quiet_NaN());
  const auto weights = std::make_shared<const DecoderWeights>(broken);
  Request good;
  good.prompt = {1, 2, 3, 4, 5, 6, 8, 9, 10};
  good.max_tokens = 6;
  good.sample.logit_bias = {{7, -std::numeric_limits<double>::infinity()}};
  Scheduler scheduler(weights, small_options());
  std::vector<Answer> answers(8);
  for (size_t i = 0; i < answers.size(); ++i) {
    Request request = watched(good, answers[i]);
    if (i == 1) request.prompt = {1, 7, 2};
    if (i == 2) request.on_token = [](const TokenEvent&) -> bool { throw Error("enough"); };
    if (i == 3) request.on_prefill = [](int64_t, int64_t) { throw Error("too long"); };
    if (i == 4) {
      request.prompt = {7, 1, 2};
      request.prompt_logprobs = 0;
    }
    if (i == 5) request.on_mask = [](std::span<uint32_t>) { throw Error("no grammar"); };
    scheduler.submit(request);
  }
  scheduler.drain();
  expect_all_free(scheduler);
  const auto expected = plain_answer(*weights, good);
  for (const size_t i : {0, 6, 7}) EXPECT_EQ(answers[i].tokens, expected);
  EXPECT_EQ(answers[1].finish.error, "the model's logits after 3 tokens are no numbers");
  EXPECT_EQ(answers[2].finish.error, "enough");
  EXPECT_EQ(answers[3].finish.error, "too long");
  EXPECT_EQ(answers[4].finish.error, "the model's logits after 1 tokens are no numbers");
  EXPECT_EQ(answers[5].finish.error, "no grammar");
  for (const Answer& answer : answers) EXPECT_EQ(answer.ends, 1);
  for (size_t i = 1; i < 6; ++i) EXPECT_EQ(answers[i].finish.reason, Reason::kError);
}

// A decoder that throws for all of a call: each is tried by itself, then told.
TEST_P(SchedulerTest, AFailedCallEndsEveryRequestWithItsError) {
  DecoderWeights broken = *weights_;
  broken.layers[1].down.value = broken.layers[1].down.value.slice(0, 0, 5);
  Scheduler scheduler(std::make_shared<const DecoderWeights>(broken), small_options());
  std::vector<Answer> answers(3);
  for (Answer& answer : answers) {
    scheduler.submit(watched({.prompt = {1, 2, 3}, .max_tokens = 6}, answer));
  }
  scheduler.drain();
  expect_all_free(scheduler);
  for (const Answer& answer : answers) {
    EXPECT_EQ(answer.ends, 1);
    EXPECT_EQ(answer.finish.reason, Reason::kError);
    EXPECT_FALSE(answer.finish.error.empty());
  }
}

// Also where the request ends at a token that it is told of only then.
TEST_P(SchedulerTest, NothingIsKeptOfACallThatFailed) {
  SchedulerOptions options = small_options();
  options.tells_beside = true;
  bool fails = false;
  options.forward = [&](const DecoderWeights& weights, const Batch& batch,
                        const DecoderCall& call) {
    const at::Tensor hidden = decode(weights, batch);
    if (fails) throw Error("no memory");
    return hidden.index_select(0, at::tensor(call.rows, at::kLong));
  };
  Scheduler scheduler(weights_, options);
  Answer stopped, next;
  Request request = watched({.prompt = random_tokens(9, 1), .max_tokens = 6}, stopped);
  request.on_token = [](const TokenEvent&) { return false; };
  scheduler.submit(request);
  while (scheduler.stats().generated_tokens == 0) scheduler.step();
  EXPECT_EQ(stopped.ends, 0);
  fails = true;
  scheduler.drain();
  fails = false;
  EXPECT_EQ(stopped.ends, 1);
  EXPECT_EQ(stopped.finish.reason, Reason::kStop);

  request.prompt.insert(request.prompt.end(), {3, 4});
  scheduler.submit(watched({.prompt = request.prompt, .max_tokens = 6}, next));
  scheduler.drain();
  EXPECT_EQ(next.tokens, plain_answer(*weights_, {.prompt = request.prompt, .max_tokens = 6}));
  expect_all_free(scheduler);
}

TEST_P(SchedulerTest, AShortPromptWaitsForTwoChunksAtMost) {
  Scheduler scheduler(weights_, small_options());
  // Steps that a chunk takes.
  const auto steps = GetParam().by_layers ? std::ssize(weights_->layers) : 1;
  Answer writer, reader, asker;
  int64_t chunks = 0;
  scheduler.submit(watched({.prompt = {1, 2}, .max_tokens = 60}, writer));
  scheduler.step();
  Request longest = watched({.prompt = random_tokens(200, 4), .max_tokens = 1}, reader);
  longest.on_prefill = [&](int64_t, int64_t) { ++chunks; };
  scheduler.submit(longest);
  for (int i = 0; i < 5 * steps; ++i) {
    const size_t before = writer.tokens.size();
    scheduler.step();
    EXPECT_EQ(writer.tokens.size(), before + 1);  // a token between any two parts of chunks
  }
  EXPECT_EQ(chunks, 5);
  scheduler.submit(watched({.prompt = {3, 4, 5}, .max_tokens = 4}, asker));
  for (int i = 0; i < steps; ++i) scheduler.step();
  EXPECT_EQ(asker.tokens.size(), GetParam().tells_beside ? 0u : 1u);  // chosen, but not told yet
  EXPECT_EQ(chunks, 6);  // the long one goes on meanwhile
  scheduler.drain();
  EXPECT_EQ(reader.tokens.size(), 1u);
}

TEST_P(SchedulerTest, HigherPriorityGoesFirstAndTakesThePlace) {
  SchedulerOptions options = small_options();
  options.max_running = 1;
  Scheduler scheduler(weights_, options);
  std::vector<int> order;
  std::vector<Answer> answers(3);
  const auto submit = [&](int which, int64_t priority) {
    Request request =
        watched({.prompt = {1, 2, which}, .max_tokens = 6, .priority = priority}, answers[which]);
    request.on_finish = [&, which](const Finish&) { order.push_back(which); };
    scheduler.submit(request);
  };
  submit(0, 0);
  submit(1, 0);
  scheduler.step();
  scheduler.step();
  submit(2, 5);
  scheduler.drain();
  EXPECT_EQ(order, (std::vector<int>{2, 0, 1}));
  EXPECT_EQ(scheduler.stats().preemptions, 1);
  EXPECT_EQ(answers[0].tokens, plain_answer(*weights_, {.prompt = {1, 2, 0}, .max_tokens = 6}));
}

TEST_P(SchedulerTest, RefusesWhatCanNeverRun) {
  SchedulerOptions options = small_options();
  options.context = 10;
  Scheduler scheduler(weights_, options);
  EXPECT_EQ(scheduler.context(), 10);
  EXPECT_THROW(scheduler.submit({}), Error);
  EXPECT_THROW(scheduler.submit({.prompt = {61}}), Error);
  EXPECT_THROW(scheduler.submit({.prompt = {-1}}), Error);
  EXPECT_THROW(scheduler.submit({.prompt = random_tokens(10, 1)}), Error);
  EXPECT_THROW(scheduler.submit({.prompt = {1}, .max_tokens = -1}), Error);
  EXPECT_THROW(scheduler.submit({.prompt = {1}, .sample = {.temperature = -1}}), Error);
  EXPECT_THROW(scheduler.submit({.prompt = {1}, .prompt_logprobs = 0, .prompt_logprobs_from = 2}),
               Error);
  EXPECT_FALSE(scheduler.step());
  options.memory_bytes = 100;
  EXPECT_THROW(Scheduler(weights_, options), Error);
}

TEST_P(SchedulerTest, UnfinishedRequestsAreCancelledWithTheScheduler) {
  std::vector<Answer> answers(4);
  {
    SchedulerOptions options = small_options();
    options.max_running = 2;
    Scheduler scheduler(weights_, options);
    for (Answer& answer : answers) {
      scheduler.submit(watched({.prompt = {1, 2}, .max_tokens = 50}, answer));
    }
    scheduler.step();
    scheduler.submit(watched({.prompt = {1, 2}, .max_tokens = 50}, answers[3]));
  }
  EXPECT_EQ(answers[3].ends, 2);
  for (const Answer& answer : answers) EXPECT_EQ(answer.finish.reason, Reason::kCancelled);
}

// Eight threads submit and cancel at random moments while one drives.
TEST_P(SchedulerTest, ThreadsSubmitAndCancel) {
  SchedulerOptions options = small_options();
  options.memory_bytes = memory_of(*weights_, 14, 4);
  Scheduler scheduler(weights_, options);
  std::jthread driver([&](const std::stop_token& stop) { scheduler.run(stop); });
  constexpr int kThreads = 8, kEach = 12;
  std::vector<Answer> answers(kThreads * kEach);
  std::vector<Request> asked(answers.size());
  std::atomic<int> ended = 0;
  {
    std::vector<std::jthread> callers;
    for (int t = 0; t < kThreads; ++t) {
      callers.emplace_back([&, t] {
        const Random random(t, "scheduler test");
        for (int i = 0; i < kEach; ++i) {
          const auto at = static_cast<size_t>(int64_t{t} * kEach + i);
          Request request;
          request.prompt = random_tokens(1 + random.below(4 * i, 20), at);
          request.max_tokens = 1 + random.below(4 * i + 1, 8);
          if (i % 2 == 0) request.sample = {.temperature = 1};
          request.stream = static_cast<int64_t>(at);
          asked[at] = request;
          request = watched(request, answers[at]);
          request.on_finish = [&, at](const Finish& finish) {
            answers[at].finish = finish;
            ++answers[at].ends;
            ++ended;
          };
          const RequestId id = scheduler.submit(std::move(request));
          if (random.below(4 * i + 2, 2) == 0) {
            std::this_thread::sleep_for(std::chrono::microseconds(random.below(4 * i + 3, 3000)));
            scheduler.cancel(id);
          }
          scheduler.stats();
        }
      });
    }
  }
  while (ended < std::ssize(answers)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  driver.request_stop();
  driver.join();
  expect_all_free(scheduler);
  int whole = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].ends, 1);
    const auto expected = plain_answer(*weights_, asked[i]);
    const auto& got = answers[i].tokens;
    ASSERT_LE(got.size(), expected.size());
    EXPECT_TRUE(std::equal(got.begin(), got.end(), expected.begin())) << i;
    if (answers[i].finish.reason == Reason::kCancelled) continue;
    EXPECT_EQ(answers[i].finish.reason, Reason::kLength) << answers[i].finish.error;
    EXPECT_EQ(got.size(), expected.size());
    ++whole;
  }
  EXPECT_GT(whole, 0);
}

}  // namespace
}  // namespace halo
