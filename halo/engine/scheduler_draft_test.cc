// That drafts change no token and no end.
#include "halo/base/check.h"
#include "halo/engine/draft.h"
#include "halo/engine/scheduler_testing.h"

namespace halo {
namespace {

using test::memory_of;
using test::SchedulerTest;
using Answer = test::WatchedAnswer;

// Answers of two words alone, so that drafts are right by chance: no token changes by them.
TEST_P(SchedulerTest, DraftsChangeNoToken) {
  std::vector<Request> all = requests();
  for (Request& request : all) {
    *request.max_tokens += 30;
    request.sample.logit_bias = {{5, 1000}, {6, 1000}};
    request.draft_tokens = 8;
  }
  all.back().draft_tokens = 0;  // beside others
  SchedulerOptions options = small_options();
  int64_t preemptions = 0;
  const int64_t few = GetParam().hybrid ? 40 : 18;  // states take some of their memory
  for (const int64_t running : {1, 2, 4}) {
    for (const int64_t blocks : {few, int64_t{1000}}) {
      options.max_running = running;
      options.memory_bytes = memory_of(*weights_, blocks, 2 * running);
      SchedulerStats stats;
      SCOPED_TRACE(testing::Message() << running << " running, " << blocks << " blocks");
      expect_plain(all, run(options, all, &stats));
      preemptions += stats.preemptions;
      if (blocks < 1000) continue;
      EXPECT_GT(stats.right_tokens, 20);
      EXPECT_LT(stats.right_tokens, stats.draft_tokens);
    }
  }
  EXPECT_GT(preemptions, 0);
}

// Among drafts too: at an end token, at limits, by an error, and with masks, which each token has
// of its own.
TEST_P(SchedulerTest, DraftsEndWhereAnswersDo) {
  Request request;
  request.prompt = {5, 6, 7, 8, 9, 5, 6, 7, 8, 9, 5, 6, 7};
  request.max_tokens = 30;
  // It says what follows, as the text before has it, for 14 tokens, and then others.
  const std::vector<int64_t> order = {5, 6, 7, 8, 9};
  int64_t said = 0;
  const auto allow = [&](std::span<uint32_t> allowed) {
    const int64_t token = said < 14 ? order[static_cast<size_t>((3 + said) % 5)] : 20 + said;
    std::ranges::fill(allowed, 0);
    allowed[static_cast<size_t>(token / 32)] = uint32_t{1} << (token % 32);
    ++said;
  };
  request.on_mask = allow;
  const auto answer_with = [&](auto change) {
    Request changed = request;
    change(changed);
    std::vector<Answer> out;
    for (const int64_t draft : {0, 8}) {
      said = 0;
      changed.draft_tokens = draft;
      SchedulerStats stats;
      out.push_back(run(small_options(), {changed}, &stats)[0]);
      EXPECT_EQ(stats.right_tokens > 0, draft > 0);
    }
    EXPECT_EQ(out[0].tokens, out[1].tokens);
    EXPECT_EQ(out[0].finish.reason, out[1].finish.reason);
    EXPECT_EQ(out[0].finish.end_token, out[1].finish.end_token);
    EXPECT_EQ(out[0].finish.completion_tokens, out[1].finish.completion_tokens);
    EXPECT_EQ(out[0].finish.error, out[1].finish.error);
    return out[1];
  };
  EXPECT_EQ(answer_with([](Request&) {}).tokens.size(), 30u);
  EXPECT_EQ(answer_with([](Request& r) { r.stop_ids = {5}; }).tokens.size(), 2u);
  EXPECT_EQ(answer_with([](Request& r) { r.max_tokens = 11; }).tokens.size(), 11u);
  EXPECT_EQ(answer_with([](Request& r) { r.context = 20; }).tokens.size(), 7u);
  const Answer failed = answer_with([&](Request& r) {
    r.on_mask = [&](std::span<uint32_t> allowed) {
      if (said == 6) throw_error("no more");
      allow(allowed);
    };
  });
  EXPECT_EQ(failed.finish.reason, Finish::Reason::kError);
  EXPECT_EQ(failed.tokens.size(), 6u);
}

}  // namespace
}  // namespace halo
