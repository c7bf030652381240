// Conversations as people have them: they grow, are asked anew, edited, branched and given up,
// several at a time, with beginnings in common and salts of their own, in memory for a few of them.
// Every token and its log-probability is what it is without reuse, bit for bit, and nothing comes
// from another salt.
// HALO_CONVERSATIONS=2000 has more of them, HALO_CONVERSATIONS_SEED=7 others.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "halo/base/random.h"
#include "halo/engine/scheduler_testing.h"
#include "tests/asked.h"

namespace halo {
namespace {

using Tokens = std::vector<int64_t>;

struct Talk {
  uint64_t salt = 0;
  Tokens tokens;              // all that was said
  std::vector<size_t> turns;  // where in it what a person says begins
  size_t asked = 0;           // tokens of the last prompt
};

struct Said {
  Tokens tokens;
  std::vector<double> logprobs;
};

constexpr size_t kLongest = 70;  // tokens before a conversation is over
constexpr size_t kAtATime = 6;   // conversations that are not
constexpr int64_t kMostAnswer = 5;

class Conversations {
 public:
  struct Counts {
    int64_t begun = 0, whole = 0, cut = 0, reused = 0, missed = 0;
  };

  Conversations(std::shared_ptr<const DecoderWeights> weights, const SchedulerOptions& options,
                const Random& random, Counts& counts)
      : weights_(std::move(weights)),
        scheduler_(weights_, options),
        random_(random),
        counts_(counts) {}

  void run(int64_t number) {
    const int64_t end = counts_.begun + number;
    while (counts_.begun < end && !testing::Test::HasFatalFailure()) {
      std::vector<size_t> places;
      for (int64_t i = 1 + below(3); i > 0; --i) places.push_back(next_prompt());
      std::ranges::sort(places);
      places.erase(std::unique(places.begin(), places.end()), places.end());
      ask(places);
    }
    test::expect_all_free(scheduler_);
  }

 private:
  // A request and what is known of its answer.
  struct Asked {
    size_t place;  // of the conversation
    Request request;
    Said said;
    Finish finish;
    bool ended = false;
  };

  int64_t below(int64_t n) { return random_.below(draws_++, n); }

  void say(Talk& talk) {
    talk.turns.push_back(talk.tokens.size());
    const Tokens more = test::random_tokens(1 + below(9), static_cast<uint64_t>(below(3)));
    talk.tokens.insert(talk.tokens.end(), more.begin(), more.end());
  }

  void edit(Talk& talk) {
    const auto turn = static_cast<size_t>(below(std::ssize(talk.turns)));
    talk.tokens.resize(talk.turns[turn]);
    talk.turns.resize(turn);
    say(talk);
  }

  static void ask_again(Talk& talk) {
    if (talk.asked == 0) return;
    talk.tokens.resize(std::min(talk.asked, talk.tokens.size()));
    while (talk.turns.back() >= talk.tokens.size()) talk.turns.pop_back();
  }

  Talk begin() {
    ++counts_.begun;
    Talk talk{.salt = static_cast<uint64_t>(below(3)),
              .tokens = test::random_tokens(12, static_cast<uint64_t>(below(2)))};
    say(talk);
    return talk;
  }

  // The conversation that goes on, by its place.
  size_t next_prompt() {
    if (talks_.size() < kAtATime) {
      talks_.push_back(begin());
      return talks_.size() - 1;
    }
    auto place = static_cast<size_t>(below(std::ssize(talks_)));
    switch (below(6)) {
      case 0:
        ask_again(talks_[place]);
        break;
      case 1:
        edit(talks_[place]);
        break;
      case 2: {
        ++counts_.begun;
        const size_t other = (place + 1) % talks_.size();
        talks_[other] = talks_[place];
        edit(talks_[place = other]);
        break;
      }
      default:
        say(talks_[place]);
    }
    if (talks_[place].tokens.size() > kLongest) talks_[place] = begin();
    return place;
  }

  Request request_of(const Talk& talk) {
    Request request{.prompt = talk.tokens, .max_tokens = 1 + below(kMostAnswer), .seed = below(2)};
    request.sample.temperature = below(2) == 0 ? 0 : 1;
    request.top_logprobs = 0;
    request.salt = talk.salt;
    return request;
  }

  void submit(Asked& asked) {
    Request request = asked.request;
    request.on_token = [&asked](const TokenEvent& event) {
      asked.said.tokens.push_back(event.token);
      asked.said.logprobs.push_back(event.logprob);
      return true;
    };
    request.on_finish = [&asked](const Finish& finish) {
      asked.finish = finish;
      asked.ended = true;
    };
    const RequestId id = scheduler_.submit(std::move(request));
    for (int64_t steps = below(4); steps > 0; --steps) scheduler_.step();
    if (below(8) == 0) scheduler_.cancel(id);
  }

  void ask(const std::vector<size_t>& places) {
    std::vector<Asked> all;
    for (const size_t place : places) {
      talks_[place].asked = talks_[place].tokens.size();
      all.push_back({.place = place, .request = request_of(talks_[place])});
    }
    for (Asked& asked : all) submit(asked);
    scheduler_.drain();
    for (const Asked& asked : all) {
      ASSERT_TRUE(asked.ended && asked.finish.error.empty()) << asked.finish.error;
      check_tokens(asked);
      check_origin(asked, all);
    }
    for (const Asked& asked : all) {
      Talk& talk = talks_[asked.place];
      talk.tokens.insert(talk.tokens.end(), asked.said.tokens.begin(), asked.said.tokens.end());
      known_[talk.salt].push_back(talk.tokens);
    }
  }

  void check_tokens(const Asked& asked) {
    const Said& expected = plain(asked.request);
    const bool whole = asked.finish.reason == Finish::Reason::kLength;
    ASSERT_TRUE(!whole || std::ssize(asked.said.tokens) == asked.request.max_tokens);
    ASSERT_LE(asked.said.tokens.size(), expected.tokens.size());
    ASSERT_TRUE(
        std::equal(asked.said.tokens.begin(), asked.said.tokens.end(), expected.tokens.begin()));
    ASSERT_TRUE(std::equal(asked.said.logprobs.begin(), asked.said.logprobs.end(),
                           expected.logprobs.begin()));
    ++(whole ? counts_.whole : counts_.cut);
    counts_.reused += asked.finish.cached_tokens;
    counts_.missed += asked.finish.prompt_tokens - asked.finish.cached_tokens;
  }

  // What was reused is of the same salt: of an earlier conversation, or of one that was asked
  // beside.
  void check_origin(const Asked& asked, const std::vector<Asked>& all) {
    const Tokens& prompt = asked.request.prompt;
    int64_t shared = 0;
    const auto look = [&](const Tokens& other) {
      const auto parted = std::ranges::mismatch(prompt, other);
      shared = std::max<int64_t>(shared, parted.in1 - prompt.begin());
    };
    std::ranges::for_each(known_[asked.request.salt], look);
    for (const Asked& other : all) {
      if (&other == &asked || other.request.salt != asked.request.salt) continue;
      Tokens tokens = other.request.prompt;
      tokens.insert(tokens.end(), other.said.tokens.begin(), other.said.tokens.end());
      look(tokens);
    }
    ASSERT_LE(asked.finish.cached_tokens, shared);
  }

  // The answer where nothing was ever kept; remembered.
  const Said& plain(const Request& request) {
    Said& said = plain_[{request.prompt, request.seed, request.sample.temperature}];
    if (std::ssize(said.tokens) >= *request.max_tokens) return said;
    said = {};
    Request alone = request;
    alone.max_tokens = kMostAnswer;
    alone.on_token = [&said](const TokenEvent& event) {
      said.tokens.push_back(event.token);
      said.logprobs.push_back(event.logprob);
      return true;
    };
    Scheduler scheduler(weights_, {.kernels = Kernels::kReference,
                                   .memory_bytes = 1 << 20,
                                   .max_running = 1,
                                   .reuse_prefixes = false});
    scheduler.submit(std::move(alone));
    scheduler.drain();
    return said;
  }

  std::shared_ptr<const DecoderWeights> weights_;
  Scheduler scheduler_;
  const Random random_;
  Counts& counts_;
  uint64_t draws_ = 0;
  std::vector<Talk> talks_;
  std::map<uint64_t, std::vector<Tokens>> known_;  // by salt, all that may be kept
  std::map<std::tuple<Tokens, int64_t, double>, Said> plain_;
};

class ConversationsTest : public testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(, ConversationsTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Hybrid" : "Transformer"; });

TEST_P(ConversationsTest, ReuseChangesNoBit) {
  constexpr int64_t kEach = 20;  // conversations of one scheduler
  const auto weights =
      test::random_model(GetParam() ? test::hybrid_config() : test::transformer_config());
  const int64_t number = test::asked("HALO_CONVERSATIONS", 40);
  const auto seed = static_cast<uint64_t>(test::asked("HALO_CONVERSATIONS_SEED", 1));
  Conversations::Counts counts;
  for (uint64_t round = 0; counts.begun < number && !HasFatalFailure(); ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    const Random random(seed, "conversations", round);
    const auto draw = [&](uint64_t which, int64_t n) { return random.below(which, n); };
    SchedulerOptions options{.kernels = Kernels::kReference,
                             .max_running = 1 + draw(0, 4),
                             .prefill_chunk = 1 + draw(1, 20),
                             .prefill_share = draw(6, 2) == 1 ? 1e-9 : 0,
                             .block_size = 4,
                             .tells_beside = draw(5, 2) == 1,
                             .min_reused = 3,
                             .snapshot_spacing = 4 + draw(2, 30)};
    options.memory_bytes = test::memory_of(*weights, 24 + draw(3, 60), 4 + draw(4, 12));
    Conversations(weights, options, Random(seed, "talk", round), counts).run(kEach);
  }
  EXPECT_GE(counts.begun, number);
  EXPECT_GT(counts.whole, 3 * counts.begun / 2);
  EXPECT_GT(counts.cut, 0);
  // Most is kept, and not all of it: memory ends.
  EXPECT_GT(counts.reused, counts.missed / 2);
  EXPECT_GT(counts.missed, 0);
}

}  // namespace
}  // namespace halo
