#include "halo/engine/engine.h"

#include <gtest/gtest.h>

#include <ostream>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::plain_decode;
using test::random_tokens;
using test::relative_error;

const EngineOptions kSmall = {Kernels::kReference, 4, 7};

std::vector<int64_t> slice(const std::vector<int64_t>& tokens, size_t begin, size_t end) {
  return {tokens.begin() + begin, tokens.begin() + end};
}

struct Case {
  const char* name;
  ModelConfig config;
  Kernels kernels;
  double bound;  // of relative_error
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

class EngineTest : public testing::TestWithParam<Case> {
 protected:
  EngineTest() : weights_(test::random_model(GetParam().config)) {}

  Engine engine(int64_t max_batch_tokens = 7) const {
    return Engine(weights_, {GetParam().kernels, 4, max_batch_tokens});
  }
  at::Tensor plain(const std::vector<int64_t>& tokens) const {
    return plain_decode(*weights_, tokens, GetParam().kernels);
  }
  void expect_same(const at::Tensor& actual, const at::Tensor& expected) const {
    ASSERT_EQ(actual.sizes(), expected.sizes());
    EXPECT_LE(relative_error(actual, expected), GetParam().bound);
  }

  std::shared_ptr<const DecoderWeights> weights_;
};

TEST_P(EngineTest, ChunksEqualOneGo) {
  const auto tokens = random_tokens(23, 1);
  const at::Tensor expected = plain(tokens);
  for (int64_t max_batch_tokens : {1, 7, 100}) {
    Engine engine = this->engine(max_batch_tokens);
    const int64_t sequence = engine.create();
    std::vector<at::Tensor> parts;
    size_t begin = 0;
    for (size_t end : {1, 5, 8, 8, 21, 23}) {
      parts.push_back(engine.extend({sequence}, {slice(tokens, begin, end)}, Engine::Rows::kAll));
      begin = end;
    }
    EXPECT_EQ(engine.length(sequence), 23);
    expect_same(at::cat(parts), expected);
  }
}

TEST_P(EngineTest, PackedEqualsSeparate) {
  const std::vector<std::vector<int64_t>> tokens = {random_tokens(9, 1), random_tokens(1, 2),
                                                    random_tokens(17, 3)};
  Engine engine = this->engine();
  const std::vector<int64_t> sequences = {engine.create(), engine.create(), engine.create()};
  // The first call leaves the second sequence alone, the next ones are ragged and continue.
  const at::Tensor first = engine.extend(
      sequences, {slice(tokens[0], 0, 4), {}, slice(tokens[2], 0, 6)}, Engine::Rows::kAll);
  const at::Tensor second = engine.extend(
      sequences, {slice(tokens[0], 4, 9), tokens[1], slice(tokens[2], 6, 17)}, Engine::Rows::kAll);
  expect_same(at::cat({first.narrow(0, 0, 4), second.narrow(0, 0, 5)}), plain(tokens[0]));
  expect_same(second.narrow(0, 5, 1), plain(tokens[1]));
  expect_same(at::cat({first.narrow(0, 4, 6), second.narrow(0, 6, 11)}), plain(tokens[2]));
}

TEST_P(EngineTest, LastRowsAreTheSequencesLastTokens) {
  const std::vector<std::vector<int64_t>> tokens = {random_tokens(9, 1), random_tokens(1, 2),
                                                    random_tokens(17, 3)};
  for (int64_t max_batch_tokens : {1, 5, 100}) {
    Engine engine = this->engine(max_batch_tokens);
    const at::Tensor last = engine.extend({engine.create(), engine.create(), engine.create()},
                                          tokens, Engine::Rows::kLast);
    std::vector<at::Tensor> expected;
    for (const auto& list : tokens) expected.push_back(plain(list).slice(0, -1));
    expect_same(last, at::cat(expected));
  }
}

// Sequences that come, go and pause between calls of one token and of many.
TEST_P(EngineTest, AdvancesAsInOneGo) {
  const std::vector<std::vector<int64_t>> tokens = {random_tokens(19, 1), random_tokens(9, 2),
                                                    random_tokens(14, 3)};
  Engine engine = this->engine();
  const std::vector<int64_t> ids = {engine.create(), engine.create(), engine.create()};
  std::vector<size_t> fed = {4, 0, 6};
  engine.extend(ids, {slice(tokens[0], 0, 4), {}, slice(tokens[2], 0, 6)}, Engine::Rows::kAll);
  for (size_t turn = 0; turn < 15; ++turn) {
    std::vector<int64_t> sequences;
    std::vector<std::vector<int64_t>> inputs;
    std::vector<at::Tensor> expected;
    for (size_t s = 0; s < 3; ++s) {
      if (fed[s] == tokens[s].size() || (turn + s) % 4 == 0) continue;
      const size_t more = turn == 2 ? 2 : 1;
      sequences.push_back(ids[s]);
      inputs.push_back(slice(tokens[s], fed[s], fed[s] + more));
      fed[s] += more;
      expected.push_back(engine.logits(plain(slice(tokens[s], 0, fed[s]))).slice(0, -1));
    }
    if (sequences.empty()) continue;
    expect_same(engine.advance(sequences, inputs), at::cat(expected));
  }
}

TEST_P(EngineTest, ForkContinuesAsItsParentWould) {
  const auto prefix = random_tokens(10, 1);
  for (size_t shared : {0, 3, 4, 8, 10}) {  // empty, partial, full blocks
    Engine engine = this->engine();
    const int64_t parent = engine.create();
    engine.extend({parent}, {slice(prefix, 0, shared)}, Engine::Rows::kAll);
    const int64_t child = engine.fork(parent);
    const auto a = random_tokens(6, 2), b = random_tokens(9, 3);
    const at::Tensor hidden = engine.extend({parent, child}, {a, b}, Engine::Rows::kAll);
    for (const auto& [tail, begin] : {std::pair(a, 0), std::pair(b, 6)}) {
      auto whole = slice(prefix, 0, shared);
      whole.insert(whole.end(), tail.begin(), tail.end());
      expect_same(hidden.narrow(0, begin, tail.size()),
                  plain(whole).narrow(0, shared, tail.size()));
    }
    // The child outlives its parent's blocks.
    engine.release(parent);
    const at::Tensor more = engine.extend({child}, {{5}}, Engine::Rows::kLast);
    auto whole = slice(prefix, 0, shared);
    whole.insert(whole.end(), b.begin(), b.end());
    whole.push_back(5);
    expect_same(more, plain(whole).slice(0, -1));
  }
}

TEST_P(EngineTest, ReleasedMemoryLeavesNoTrace) {
  Engine engine = this->engine();
  const int64_t old = engine.create();
  engine.extend({old}, {random_tokens(20, 1)}, Engine::Rows::kAll);
  const int64_t blocks = engine.blocks().capacity(), slots = engine.slots().capacity();
  engine.release(old);
  const auto tokens = random_tokens(18, 2);
  expect_same(engine.extend({engine.create()}, {tokens}, Engine::Rows::kAll), plain(tokens));
  EXPECT_EQ(engine.blocks().capacity(), blocks);
  EXPECT_EQ(engine.slots().capacity(), slots);
}

INSTANTIATE_TEST_SUITE_P(
    , EngineTest,
    testing::Values(Case{"TransformerReference", test::transformer_config(), Kernels::kReference,
                         0},
                    Case{"TransformerFast", test::transformer_config(), Kernels::kFast, 5e-5},
                    Case{"HybridReference", test::hybrid_config(), Kernels::kReference, 0},
                    Case{"HybridFast", test::hybrid_config(), Kernels::kFast, 5e-5}),
    [](const auto& info) { return info.param.name; });

TEST(EngineAccountingTest, OwnedSequencesAreReleased) {
  Engine engine(test::random_model(test::hybrid_config()), kSmall);
  {
    std::vector<OwnedSequence> sequences;
    sequences.emplace_back(engine);
    engine.extend({sequences[0].id()}, {{1, 2, 3, 4, 5}}, Engine::Rows::kAll);
    sequences.push_back(sequences[0].fork());
    sequences.erase(sequences.begin());
    EXPECT_EQ(engine.slots().num_used(), 1);
    EXPECT_EQ(engine.blocks().num_used(), 2);
  }
  EXPECT_EQ(engine.slots().num_used(), 0);
  EXPECT_EQ(engine.blocks().num_used(), 0);
}

TEST(EngineErrorTest, WrongCallsAreRefused) {
  Engine engine(test::random_model(test::hybrid_config()), kSmall);
  const int64_t sequence = engine.create();
  const auto all = Engine::Rows::kAll;
  EXPECT_THROW(engine.extend({sequence + 1}, {{1}}, all), std::exception);
  EXPECT_THROW(engine.extend({sequence, sequence}, {{1}, {2}}, all), std::exception);
  EXPECT_THROW(engine.extend({sequence}, {{61}}, all), std::exception);
  EXPECT_THROW(engine.extend({sequence}, {{-1}}, all), std::exception);
  EXPECT_THROW(engine.extend({sequence}, {{}}, Engine::Rows::kLast), std::exception);
  EXPECT_THROW(engine.extend({sequence}, {}, all), std::exception);
  engine.release(sequence);
  EXPECT_THROW(engine.release(sequence), std::exception);
  EXPECT_THROW(engine.fork(sequence), std::exception);
}

TEST(EngineBlocksTest, AreReservedAndGivenBack) {
  Engine engine(test::random_model(test::hybrid_config()),
                {.block_size = 4, .max_blocks = 8, .max_slots = 2});
  const int64_t sequence = engine.create(), other = engine.create();
  engine.reserve(sequence, 18);
  EXPECT_EQ(engine.blocks().num_used(), 5);
  EXPECT_EQ(engine.blocks_for(sequence, 18), 0);
  EXPECT_THROW(engine.reserve(other, 13), Error);
  engine.extend({sequence}, {random_tokens(5, 1)}, Engine::Rows::kLast);
  EXPECT_EQ(engine.blocks().num_used(), 5);
  engine.give_back_spare(sequence);
  EXPECT_EQ(engine.blocks().num_used(), 2);
  engine.release(sequence);
  EXPECT_EQ(engine.blocks().num_used(), 0);
}

// Of as many numbers, but of another shape.
TEST(EngineErrorTest, LightningLayersOfTwoShapesAreRefused) {
  DecoderWeights weights = *test::random_model(test::hybrid_config());
  auto& last = std::get<LightningWeights>(weights.layers[2].mixer);
  last.heads = 1;
  last.head_dim = 16;
  Engine engine(std::make_shared<const DecoderWeights>(weights), kSmall);
  EXPECT_TRUE(test::error_of([&] { engine.create(); })
                  .starts_with("engine: layer 2 has 1 lightning heads of 16, the layers before it "
                               "4 of 8"));
}

TEST(BlockAllocatorTest, BlocksAreFreeAfterTheirLastUser) {
  BlockAllocator pool;
  EXPECT_THROW(pool.take(), std::exception);
  pool.grow(2);
  const int64_t a = pool.take(), b = pool.take();
  EXPECT_NE(a, b);
  EXPECT_THROW(pool.take(), std::exception);
  pool.share(a);
  pool.drop(a);
  EXPECT_EQ(pool.num_free(), 0);
  pool.drop(a);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_THROW(pool.drop(a), std::exception);
  EXPECT_THROW(pool.share(a), std::exception);
  pool.grow(3);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_THROW(pool.share(2), std::exception);
  EXPECT_EQ(pool.num_used() + pool.num_free(), pool.capacity());
}

TEST(BlockAllocatorTest, BlocksOfASequenceLieTogetherWhereTheyCan) {
  BlockAllocator pool;
  pool.grow(12);
  std::vector<int64_t> a, b, c, d;
  pool.take(3, a);
  pool.take(1, b);
  pool.take(2, a);  // not behind its own
  EXPECT_EQ(a, (std::vector<int64_t>{0, 1, 2, 4, 5}));
  EXPECT_EQ(b, (std::vector<int64_t>{3}));
  pool.drop(1);
  pool.drop(2);
  pool.take(3, c);  // past the gap of two
  EXPECT_EQ(c, (std::vector<int64_t>{6, 7, 8}));
  pool.take(5, d);  // no place for all of them: the longest first
  EXPECT_EQ(d, (std::vector<int64_t>{9, 10, 11, 1, 2}));
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_THROW(pool.take(1, d), std::exception);
}

}  // namespace
}  // namespace halo
