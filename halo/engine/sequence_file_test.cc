#include "halo/engine/sequence_file.h"

#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/random.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::random_tokens;

class SequenceFileTest : public testing::TestWithParam<bool> {
 protected:
  const EngineOptions options_ = {Kernels::kReference, 4, 7};

  std::shared_ptr<const DecoderWeights> weights_ =
      test::random_model(GetParam() ? test::hybrid_config() : test::transformer_config());
  test::Folder folder_;
};

INSTANTIATE_TEST_SUITE_P(, SequenceFileTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Hybrid" : "Transformer"; });

TEST_P(SequenceFileTest, ALoadedSequenceGoesOnAsTheSavedOne) {
  for (const int64_t length : {1, 8, 11}) {
    const std::vector<int64_t> tokens = random_tokens(length, 1);
    Engine engine(weights_, options_), other(weights_, {Kernels::kReference, 5, 100});
    OwnedSequence sequence(engine);
    const at::Tensor logits = engine.advance({sequence.id()}, {tokens})[0].clone();
    save_sequence(folder_ / "s", engine, sequence.id(), tokens, logits, {"m", "said"});
    const LoadedSequence loaded = load_sequence(folder_ / "s", other, "m");
    EXPECT_EQ(loaded.tokens, tokens);
    EXPECT_EQ(loaded.text, "said");
    EXPECT_TRUE(at::equal(loaded.logits, logits));
    EXPECT_EQ(saved_tokens(folder_ / "s"), length);
    EXPECT_TRUE(at::equal(other.advance({loaded.sequence.id()}, {{3, 4, 5}}),
                          engine.advance({sequence.id()}, {{3, 4, 5}})));
  }
}

TEST_P(SequenceFileTest, WhatDoesNotFitIsRefused) {
  Engine engine(weights_, options_);
  OwnedSequence sequence(engine);
  const std::vector<int64_t> tokens = random_tokens(9, 1);
  engine.advance({sequence.id()}, {tokens});
  save_sequence(folder_ / "s", engine, sequence.id(), tokens, {}, {"m", ""});
  const auto error = [&](Engine& into, const char* model) {
    return test::error_of([&] { load_sequence(folder_ / "s", into, model); });
  };
  EXPECT_FALSE(load_sequence(folder_ / "s", engine, "m").logits.defined());
  EXPECT_NE(error(engine, "n").find("another model's weights"), std::string::npos);
  const auto other =
      test::random_model(GetParam() ? test::transformer_config() : test::hybrid_config());
  Engine different(other, options_);
  EXPECT_NE(error(different, "m"), "no error");
  EngineOptions small = options_;
  small.max_blocks = 2;
  Engine full(weights_, small);
  EXPECT_EQ(error(full, "m"), "all 2 blocks of sequences' memory are in use");
  EXPECT_EQ(full.slots().num_used(), 0);
  write_file(folder_ / "s", "no such thing");
  EXPECT_NE(error(engine, "m"), "no error");
}

TEST_P(SequenceFileTest, KeysInInt8StayWhatTheyAre) {
  EngineOptions int8 = options_, other_blocks = {Kernels::kReference, 5, 100};
  int8.kv_type = other_blocks.kv_type = KvType::kInt8;
  const std::vector<int64_t> tokens = random_tokens(11, 1);
  Engine engine(weights_, int8), other(weights_, other_blocks), computed(weights_, options_);
  OwnedSequence sequence(engine);
  engine.advance({sequence.id()}, {tokens});
  save_sequence(folder_ / "s", engine, sequence.id(), tokens, {}, {"m", ""});
  const LoadedSequence loaded = load_sequence(folder_ / "s", other, "m");
  EXPECT_TRUE(at::equal(other.advance({loaded.sequence.id()}, {{3, 4, 5}}),
                        engine.advance({sequence.id()}, {{3, 4, 5}})));
  EXPECT_NE(test::error_of([&] {
              load_sequence(folder_ / "s", computed, "m");
            }).find("its keys and values are int8, this run's are float32"),
            std::string::npos);
  OwnedSequence plain(computed);
  computed.advance({plain.id()}, {tokens});
  save_sequence(folder_ / "s", computed, plain.id(), tokens, {}, {"m", ""});
  EXPECT_NE(test::error_of([&] {
              load_sequence(folder_ / "s", engine, "m");
            }).find("its keys and values are float32, this run's are int8"),
            std::string::npos);
}

// Sequences that are appended to alone and in batches, in pieces, forked, cut where they can be,
// released, saved and loaded, in a memory of fixed size: hidden states are those of one pass over
// all tokens, bit for bit, and blocks and slots are those of the sequences.
TEST_P(SequenceFileTest, RandomHistoriesAreOnePass) {
  const Random random(5, "sequence history");
  uint64_t draws = 0;
  const auto below = [&](int64_t n) { return random.below(draws++, n); };
  EngineOptions options = options_;
  options.max_blocks = 200;
  options.max_slots = 13;
  Engine engine(weights_, options);
  struct Live {
    int64_t id;
    std::vector<int64_t> tokens;
  };
  std::vector<Live> live;
  int64_t checked = 0;
  const auto append = [&](const std::vector<size_t>& which) {
    std::vector<int64_t> ids;
    std::vector<std::vector<int64_t>> inputs;
    for (const size_t i : which) {
      ids.push_back(live[i].id);
      inputs.push_back(random_tokens(1 + below(9), draws++));
      live[i].tokens.insert(live[i].tokens.end(), inputs.back().begin(), inputs.back().end());
    }
    const at::Tensor hidden = engine.extend(ids, inputs, Engine::Rows::kLast);
    for (size_t i = 0; i < which.size(); ++i) {
      const at::Tensor plain =
          test::plain_decode(*weights_, live[which[i]].tokens, Kernels::kReference);
      ASSERT_TRUE(at::equal(hidden[static_cast<int64_t>(i)], plain[-1]));
      ++checked;
    }
  };
  for (int step = 0; step < 1500; ++step) {
    const int64_t action = below(10);
    const size_t chosen = live.empty() ? 0 : static_cast<size_t>(below(std::ssize(live)));
    if (live.empty() || (action == 0 && live.size() < 12)) {
      live.push_back({engine.create(), {}});
    } else if (action == 1 && live.size() < 12) {
      const int64_t length = engine.can_cut() ? below(std::ssize(live[chosen].tokens) + 1)
                                              : std::ssize(live[chosen].tokens);
      Live copy{engine.fork(live[chosen].id, length), live[chosen].tokens};
      copy.tokens.resize(static_cast<size_t>(length));
      live.push_back(std::move(copy));
    } else if (action == 2 || live[chosen].tokens.size() > 50) {
      engine.release(live[chosen].id);
      live.erase(live.begin() + static_cast<int64_t>(chosen));
    } else if (action == 3 && !live[chosen].tokens.empty()) {
      save_sequence(folder_ / "s", engine, live[chosen].id, live[chosen].tokens, {}, {"m", ""});
      engine.release(live[chosen].id);
      LoadedSequence loaded = load_sequence(folder_ / "s", engine, "m");
      ASSERT_EQ(loaded.tokens, live[chosen].tokens);
      live[chosen].id = engine.fork(loaded.sequence.id());
    } else if (action < 6) {
      append({chosen});
    } else {
      std::vector<size_t> which;
      for (size_t i = 0; i < live.size(); ++i) {
        if (below(2) == 0 && live[i].tokens.size() < 50) which.push_back(i);
      }
      if (!which.empty()) append(which);
    }
    ASSERT_EQ(engine.slots().num_used(), std::ssize(live));
    ASSERT_EQ(engine.blocks().num_used() + engine.blocks().num_free(), 200);
  }
  EXPECT_GT(checked, 1500);
  for (const Live& one : live) engine.release(one.id);
  EXPECT_EQ(engine.slots().num_used(), 0);
  EXPECT_EQ(engine.blocks().num_used(), 0);
}

}  // namespace
}  // namespace halo
