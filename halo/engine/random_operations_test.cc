// Random histories of sequences: fed alone, in pieces, together and between the layers of another's
// pass, checked and taken back, forked, cut, saved, loaded, released. In the fixed-order form every
// hidden state is that of one pass, bit for bit, and after every operation blocks and slots in use
// are those of the sequences that live. HALO_ENGINE_OPERATIONS=1000000 does more of them,
// HALO_ENGINE_SEED=7 others.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "ATen/ATen.h"
#include "halo/base/random.h"
#include "halo/engine/pool.h"
#include "halo/engine/sequence_file.h"
#include "halo/model/fp32_vectors.h"
#include "halo/model/model_testing.h"
#include "tests/asked.h"
#include "tests/testing.h"

namespace halo {
namespace {

constexpr int64_t kBlockSize = 4, kLongest = 30, kMostSequences = 8;

EngineOptions options_of(int64_t block_size, int64_t max_batch_tokens, KvType type) {
  return {.kernels = Kernels::kReference,
          .block_size = block_size,
          .max_batch_tokens = max_batch_tokens,
          .kv_type = type};
}

class Walk {
 public:
  Walk(std::shared_ptr<const DecoderWeights> weights, KvType type, uint64_t seed)
      : weights_(std::move(weights)),
        engine_(weights_, options_of(kBlockSize, 7, type)),
        at_once_(weights_, options_of(kLongest + 7, 1000, type)),
        random_(seed, "random operations") {}

  void operate() {
    using Operation = void (Walk::*)();
    static constexpr Operation kOperations[] = {
        &Walk::create, &Walk::feed,    &Walk::feed_by_layers, &Walk::feed_several, &Walk::check,
        &Walk::check,  &Walk::reject,  &Walk::reject,         &Walk::fork,         &Walk::cut,
        &Walk::feed,   &Walk::release, &Walk::save_and_load};
    if (known_.empty()) create();
    (this->*kOperations[below(std::ssize(kOperations))])();
    while (std::ssize(known_) > kMostSequences) release();
  }

  void expect_accounts() const {
    std::set<int64_t> blocks;
    for (const auto& [sequence, known] : known_) {
      blocks.insert(known.blocks.begin(), known.blocks.end());
      ASSERT_EQ(engine_.length(sequence), std::ssize(known.tokens));
    }
    ASSERT_EQ(engine_.blocks().num_used(), std::ssize(blocks));
    ASSERT_EQ(engine_.blocks().num_used() + engine_.blocks().num_free(),
              engine_.blocks().capacity());
    ASSERT_EQ(engine_.slots().num_used(), std::ssize(known_));
  }

  void release_all() {
    while (!known_.empty()) release();
    expect_accounts();
  }

 private:
  struct Known {
    std::vector<int64_t> tokens;
    std::vector<int64_t> blocks;  // a name of each
  };
  using Sequences = std::map<int64_t, Known>;

  int64_t below(int64_t bound) { return random_.below(draws_++, bound); }
  Sequences::iterator any() { return std::next(known_.begin(), below(std::ssize(known_))); }
  std::vector<int64_t> some_tokens() {
    return test::random_tokens(1 + below(6), static_cast<uint64_t>(draws_++));
  }

  // The blocks that a sequence has once it held so many tokens.
  void hold(Known& known, int64_t tokens) {
    while (std::ssize(known.blocks) < num_blocks(tokens, kBlockSize)) {
      known.blocks.push_back(next_block_++);
    }
  }

  // By the decoder alone where it sees what is stored, and by another engine's one call.
  at::Tensor one_pass(const std::vector<int64_t>& tokens, int64_t last) {
    const OwnedSequence sequence(at_once_);
    const at::Tensor hidden = at_once_.extend({sequence.id()}, {tokens}, Engine::Rows::kAll);
    const bool all_fp32 = weights_->embedding.value.scalar_type() == at::kFloat &&
                          engine_.options().kv_type == KvType::kComputed;
    if (all_fp32) {
      EXPECT_TRUE(at::equal(hidden, test::plain_decode(*weights_, tokens, Kernels::kReference)));
    }
    return hidden.narrow(0, hidden.size(0) - last, last);
  }

  // Feeds and compares; `known` has the tokens then.
  void feed_to(const std::vector<Sequences::iterator>& to) {
    std::vector<int64_t> ids;
    std::vector<std::vector<int64_t>> tokens;
    for (const auto& place : to) {
      ids.push_back(place->first);
      tokens.push_back(some_tokens());
    }
    const at::Tensor got = engine_.extend(ids, tokens, Engine::Rows::kAll);
    int64_t row = 0;
    for (size_t i = 0; i < to.size(); ++i) {
      const auto count = std::ssize(tokens[i]);
      ASSERT_NO_FATAL_FAILURE(take(to[i], tokens[i], got.narrow(0, row, count)));
      row += count;
    }
  }

  // `hidden` [tokens, D] are what feeding the tokens gave.
  void take(Sequences::iterator place, const std::vector<int64_t>& tokens,
            const at::Tensor& hidden) {
    Known& known = place->second;
    known.tokens.insert(known.tokens.end(), tokens.begin(), tokens.end());
    hold(known, std::ssize(known.tokens));
    ASSERT_TRUE(at::equal(hidden, one_pass(known.tokens, std::ssize(tokens))));
    if (std::ssize(known.tokens) > kLongest) drop(place);
  }

  void drop(Sequences::iterator place) {
    engine_.release(place->first);
    known_.erase(place);
  }

  void create() { known_[engine_.create()]; }
  void feed() { feed_to({any()}); }
  void feed_several() {
    std::vector<Sequences::iterator> all;
    for (auto it = known_.begin(); it != known_.end(); ++it) {
      if (below(2) == 0) all.push_back(it);
    }
    if (!all.empty()) feed_to(all);
  }

  // Others are fed between any two layers.
  void feed_by_layers() {
    const auto place = any();
    const std::vector<int64_t> tokens = some_tokens();
    Engine::Pass pass = engine_.begin({place->first}, {tokens}, Engine::Rows::kAll);
    while (!pass.done()) {
      pass.run();
      const auto other = any();
      if (other == place) continue;
      ASSERT_NO_FATAL_FAILURE(feed_to({other}));
    }
    take(place, tokens, pass.hidden());
  }

  // Logits of a window, whose tokens stay.
  void check() {
    const auto place = any();
    Known& known = place->second;
    const Engine::Moment before(engine_, place->first);
    const std::vector<int64_t> drafts = some_tokens();
    const auto count = std::ssize(drafts);
    const at::Tensor got = engine_.advance({place->first}, {drafts}, {count});
    known.tokens.insert(known.tokens.end(), drafts.begin(), drafts.end());
    hold(known, std::ssize(known.tokens));
    ASSERT_TRUE(
        at::equal(got, logits(*weights_, one_pass(known.tokens, count), Kernels::kReference)));
    if (std::ssize(known.tokens) > kLongest) drop(place);
  }

  // The sequence goes back, and now and then on again and back again.
  void reject() {
    const auto place = any();
    Known& known = place->second;
    Engine::Moment moment(engine_, place->first);
    const std::vector<int64_t> drafts = some_tokens();
    engine_.advance({place->first}, {drafts});
    hold(known, std::ssize(known.tokens) + std::ssize(drafts));
    moment.exchange();
    if (below(3) > 0) return;
    moment.exchange();
    moment.exchange();
  }

  void fork() {
    const auto place = any();
    const int64_t child = engine_.fork(place->first);
    add_fork(child, place->second, std::ssize(place->second.tokens));
  }

  void cut() {
    if (!engine_.can_cut()) return;
    const auto place = any();
    const int64_t length = below(std::ssize(place->second.tokens) + 1);
    const int64_t child = engine_.fork(place->first, length);
    add_fork(child, place->second, length);
  }

  void add_fork(int64_t child, const Known& parent, int64_t length) {
    Known copy = parent;
    copy.tokens.resize(static_cast<size_t>(length));
    copy.blocks.resize(static_cast<size_t>(num_blocks(length, kBlockSize)));
    if (length % kBlockSize != 0) copy.blocks.back() = next_block_++;
    known_[child] = std::move(copy);
  }

  void release() { drop(any()); }

  void save_and_load() {
    if (below(20) > 0) return;
    const auto place = any();
    const Known& known = place->second;
    if (known.tokens.empty()) return;
    save_sequence(folder_ / "sequence", engine_, place->first, known.tokens, {}, {"m", ""});
    LoadedSequence loaded = load_sequence(folder_ / "sequence", engine_, "m");
    // As a copy, which outlives its owner.
    Known copy{known.tokens, {}};
    const int64_t child = engine_.fork(loaded.sequence.id());
    hold(copy, std::ssize(copy.tokens));
    known_[child] = std::move(copy);
  }

  std::shared_ptr<const DecoderWeights> weights_;
  Engine engine_, at_once_;
  const Random random_;
  int64_t draws_ = 0, next_block_ = 0;
  Sequences known_;
  test::Folder folder_;
};

// As it is, lightning layers around one of attention, for the operations that every run makes; one
// layer fewer for the hundred thousands that are asked for, which takes a third of the time off.
ModelConfig model_for(ModelConfig config, bool many) {
  if (!many) return config;
  config.num_layers = 2;
  config.mixer_types.resize(2);
  return config;
}

DecoderWeights bf16_model(const ModelConfig& config) {
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen, at::kBFloat16,
                       at::kCPU);
  test::fill_random(store, 1, /*unit_embedding=*/true);
  return bind_decoder(config, store);
}

TEST(EngineOperations, StatesAreThoseOfOnePassAndNothingLeaks) {
  const int64_t operations = test::asked("HALO_ENGINE_OPERATIONS", 2000);
  const auto seed = static_cast<uint64_t>(test::asked("HALO_ENGINE_SEED", 1));
  const bool many = operations > 10'000;
  for (const ModelConfig& config :
       {model_for(test::hybrid_config(), many), model_for(test::transformer_config(), many)}) {
    const auto weights = test::random_model(config);
    for (const auto& [kept, type] :
         {std::pair{weights, KvType::kComputed},
          {weights, KvType::kInt8},
          {std::make_shared<const DecoderWeights>(with_fp32_vectors(bf16_model(config))),
           KvType::kComputed}}) {
      Walk walk(kept, type, seed);
      for (int64_t i = 0; i < operations / 6 && !testing::Test::HasFatalFailure(); ++i) {
        SCOPED_TRACE(testing::Message() << "operation " << i);
        walk.operate();
        walk.expect_accounts();
      }
      walk.release_all();
    }
  }
}

}  // namespace
}  // namespace halo
