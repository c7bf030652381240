// Chunks of prompts that are cut between layers, with steps of those that decode in between: what
// happens to a request in the middle of one changes no bit of anybody's answer, and nothing leaks.
#include <gtest/gtest.h>

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

class SchedulerLayersTest : public SchedulerTest {
 protected:
  static SchedulerOptions options() {
    SchedulerOptions options = small_options();
    options.prefill_chunk = 20;
    options.snapshot_spacing = 1000;
    return options;
  }
  Request reader() const { return {.prompt = random_tokens(50, 4), .max_tokens = 3}; }
  Request shorter(int64_t stream) const {
    return {.prompt = random_tokens(9, stream), .max_tokens = 3};
  }
  Request writer() const { return {.prompt = {1, 2}, .max_tokens = 40}; }
  int64_t layers() const { return std::ssize(weights_->layers); }
};

INSTANTIATE_TEST_SUITE_P(, SchedulerLayersTest,
                         testing::Values(Case{true, true, false, true},
                                         Case{true, false, true, true},
                                         Case{false, true, true, true}),
                         [](const auto& info) {
                           return fmt::format("{}{}{}",
                                              info.param.hybrid ? "Hybrid" : "Transformer",
                                              info.param.reuse ? "Reuse" : "",
                                              info.param.tells_beside ? "TellsBeside" : "");
                         });

TEST_P(SchedulerLayersTest, AnswersGoOnBetweenTheLayers) {
  Scheduler scheduler(weights_, options());
  Answer written, answered;
  std::vector<int64_t> read;
  size_t told = 0;
  scheduler.submit(watched(writer(), written));
  scheduler.step();
  Request longest = watched(reader(), answered);
  longest.on_prefill = [&](int64_t done, int64_t) {
    read.push_back(done);
    told = written.tokens.size();
  };
  scheduler.submit(longest);
  for (int64_t chunk = 0; chunk < 3; ++chunk) {
    for (int64_t layer = 0; layer < layers(); ++layer) {
      EXPECT_EQ(std::ssize(read), chunk);
      const size_t before = written.tokens.size();
      scheduler.step();
      EXPECT_EQ(written.tokens.size(), before + 1);
    }
    EXPECT_EQ(told, written.tokens.size());  // before the prompt was read
  }
  EXPECT_EQ(read, (std::vector<int64_t>{20, 40, 50}));
  scheduler.drain();
  EXPECT_EQ(written.tokens, plain_answer(*weights_, writer()));
  EXPECT_EQ(answered.tokens, plain_answer(*weights_, reader()));
  expect_all_free(scheduler);
}

// What was read before stays for who asks again, where the layers since have not changed it.
TEST_P(SchedulerLayersTest, ACancelledOneThatReadsAloneEndsAtOnce) {
  for (int64_t done = 0; done <= layers(); ++done) {
    SCOPED_TRACE(testing::Message() << done << " layers of the second chunk");
    Scheduler scheduler(weights_, options());
    Answer written, given_up, again;
    scheduler.submit(watched(writer(), written));
    scheduler.step();
    const RequestId id = scheduler.submit(watched(reader(), given_up));
    for (int64_t step = 0; step < layers() + done; ++step) scheduler.step();
    scheduler.cancel(id);
    scheduler.step();
    ASSERT_EQ(given_up.ends, 1);
    EXPECT_EQ(given_up.finish.reason, Reason::kCancelled);
    scheduler.submit(watched(reader(), again));
    scheduler.drain();
    EXPECT_EQ(again.tokens, plain_answer(*weights_, reader()));
    EXPECT_EQ(written.tokens, plain_answer(*weights_, writer()));
    const bool half_read = 0 < done && done < layers();
    const int64_t read = done == layers() ? 40 : 20;
    EXPECT_EQ(again.finish.cached_tokens,
              !GetParam().reuse || (half_read && GetParam().hybrid) ? 0 : read);
    expect_all_free(scheduler);
  }
}

// Two prompts of different beginnings, in one chunk.
TEST_P(SchedulerLayersTest, ACancelledOneThatReadsWithOthersEndsWithTheChunk) {
  for (int64_t done = 1; done < layers(); ++done) {
    SCOPED_TRACE(testing::Message() << done << " layers");
    Scheduler scheduler(weights_, options());
    Answer written, read, given_up;
    scheduler.submit(watched(writer(), written));
    scheduler.step();
    scheduler.submit(watched(shorter(5), read));
    const RequestId id = scheduler.submit(watched(shorter(6), given_up));
    for (int64_t step = 0; step < done; ++step) scheduler.step();
    scheduler.cancel(id);
    for (int64_t step = done; step < layers(); ++step) scheduler.step();
    EXPECT_EQ(given_up.ends, 0);
    scheduler.step();
    EXPECT_EQ(given_up.finish.reason, Reason::kCancelled);
    scheduler.drain();
    EXPECT_EQ(given_up.ends, 1);
    EXPECT_EQ(read.tokens, plain_answer(*weights_, shorter(5)));
    EXPECT_EQ(written.tokens, plain_answer(*weights_, writer()));
    expect_all_free(scheduler);
  }
}

// The chunk of both ends, and each is read by itself.
TEST_P(SchedulerLayersTest, AChunkThatFailsBetweenItsLayersIsReadAgain) {
  for (int64_t layer = 0; layer < layers(); ++layer) {
    SCOPED_TRACE(testing::Message() << "layer " << layer);
    const auto weights = std::make_shared<DecoderWeights>(*weights_);
    const LayerWeights whole = weights->layers[static_cast<size_t>(layer)];
    Scheduler scheduler(weights, options());
    Answer written, first, second;
    Request writing = watched(writer(), written);
    // The token of a step is told between its decoder call and the layers of prompts.
    bool breaks = false;
    writing.on_token = [&, tell = writing.on_token](const TokenEvent& event) {
      if (breaks) weights->layers[static_cast<size_t>(layer)].down.value = at::zeros({1, 1});
      return tell(event);
    };
    scheduler.submit(writing);
    scheduler.step();
    scheduler.submit(watched(shorter(5), first));
    scheduler.submit(watched(shorter(6), second));
    for (int64_t step = 0; step < layer; ++step) scheduler.step();
    breaks = true;
    scheduler.step();
    breaks = false;
    weights->layers[static_cast<size_t>(layer)] = whole;
    EXPECT_EQ(scheduler.stats().preemptions, 2);
    scheduler.drain();
    EXPECT_EQ(first.tokens, plain_answer(*weights_, shorter(5)));
    EXPECT_EQ(second.tokens, plain_answer(*weights_, shorter(6)));
    EXPECT_EQ(written.tokens, plain_answer(*weights_, writer()));
    expect_all_free(scheduler);
  }
}

// It is read to its end, so that one of two gives way, and fails there.
TEST_P(SchedulerLayersTest, WhoGivesWayInAChunkThatFailsIsReadAgain) {
  const auto weights = std::make_shared<DecoderWeights>(*weights_);
  LayerWeights& last = weights->layers.back();
  const LayerWeights whole = last;
  SchedulerOptions tight = options();
  tight.max_running = 3;
  Scheduler scheduler(weights, tight);
  Answer written, first, second, urgent;
  scheduler.submit(watched(writer(), written));
  scheduler.step();
  scheduler.submit(watched(shorter(5), first));
  scheduler.submit(watched(shorter(6), second));
  scheduler.step();
  const Request at_once = {.prompt = {5, 6, 7}, .max_tokens = 4, .priority = 1};
  scheduler.submit(watched(at_once, urgent));
  last.down.value = at::zeros({1, 1});
  scheduler.step();
  last = whole;
  EXPECT_EQ(scheduler.stats().preemptions, 2);       // neither was counted twice
  EXPECT_EQ(written.finish.reason, Reason::kError);  // its own call fails as well, alone
  scheduler.drain();
  EXPECT_EQ(first.tokens, plain_answer(*weights_, shorter(5)));
  EXPECT_EQ(second.tokens, plain_answer(*weights_, shorter(6)));
  EXPECT_EQ(urgent.tokens, plain_answer(*weights_, at_once));
  expect_all_free(scheduler);
}

// Memory ends, or somebody comes who goes first.
TEST_P(SchedulerLayersTest, WhoGivesWayInAChunkIsReadAgain) {
  for (int64_t done = 1; done < layers(); ++done) {
    SchedulerOptions tight = options();
    tight.max_running = 2;
    Scheduler scheduler(weights_, tight);
    Answer written, read, first;
    scheduler.submit(watched(writer(), written));
    scheduler.step();
    scheduler.submit(watched(reader(), read));
    for (int64_t step = 0; step < layers() + done; ++step) scheduler.step();
    Request urgent = watched({.prompt = {5, 6, 7}, .max_tokens = 4, .priority = 1}, first);
    scheduler.submit(urgent);
    scheduler.drain();
    EXPECT_EQ(scheduler.stats().preemptions, 1);
    EXPECT_EQ(first.tokens, plain_answer(*weights_, {.prompt = {5, 6, 7}, .max_tokens = 4}));
    EXPECT_EQ(written.tokens, plain_answer(*weights_, writer()));
    EXPECT_EQ(read.tokens, plain_answer(*weights_, reader()));
    expect_all_free(scheduler);
  }
}

TEST_P(SchedulerLayersTest, AnswersThatGrowTakeTheMemoryOfOneInAChunk) {
  int64_t preemptions = 0;
  for (const int64_t blocks : {15, 16, 17, 18}) {
    SchedulerOptions tight = options();
    tight.memory_bytes = memory_of(*weights_, blocks, 3);
    Scheduler scheduler(weights_, tight);
    Answer written, read;
    scheduler.submit(watched(writer(), written));
    scheduler.step();
    scheduler.submit(watched(reader(), read));
    scheduler.drain();
    EXPECT_EQ(written.tokens, plain_answer(*weights_, writer()));
    EXPECT_EQ(read.tokens, plain_answer(*weights_, reader()));
    preemptions += scheduler.stats().preemptions;
    expect_all_free(scheduler);
  }
  EXPECT_GT(preemptions, 0);
}

TEST_P(SchedulerLayersTest, TheSchedulerMayEndInTheMiddle) {
  Answer written, read;
  {
    Scheduler scheduler(weights_, options());
    scheduler.submit(watched(writer(), written));
    scheduler.step();
    scheduler.submit(watched(reader(), read));
    for (int64_t step = 0; step <= layers(); ++step) scheduler.step();
  }
  EXPECT_EQ(written.finish.reason, Reason::kCancelled);
  EXPECT_EQ(read.finish.reason, Reason::kCancelled);
}

TEST_P(SchedulerLayersTest, WhoseLogitsAreNoNumbersEndsAlone) {
  DecoderWeights broken = *weights_;
  broken.embedding.value = broken.embedding.value.clone();
  broken.embedding.value[7].fill_(std::numeric_limits<float>::quiet_NaN());
  const auto weights = std::make_shared<const DecoderWeights>(broken);
  Scheduler scheduler(weights, options());
  Answer written, read;
  Request good = writer();
  good.sample.logit_bias = {{7, -std::numeric_limits<double>::infinity()}};
  scheduler.submit(watched(good, written));
  scheduler.step();
  Request bad = reader();
  bad.prompt.back() = 7;
  scheduler.submit(watched(bad, read));
  scheduler.drain();
  EXPECT_EQ(read.finish.reason, Reason::kError);
  EXPECT_EQ(written.tokens, plain_answer(*weights, good));
  expect_all_free(scheduler);
}

}  // namespace
}  // namespace halo
