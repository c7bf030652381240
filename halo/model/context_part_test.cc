// Ranks that share a batch, which here are threads, beside one that has all of it.
#include "halo/model/context_part.h"

#include <gmock/gmock.h>

#include "halo/runtime/ranks.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::random_tensor;
using testing::ElementsAre;

constexpr int64_t kTokens = 240, kHeads = 4, kHeadDim = 8;

// Sequences in one part, over a cut, over several, and that begin at one.
const std::vector<std::vector<int64_t>> kOffsets{
    {0, 240}, {0, 10, 240}, {0, 7, 59, 60, 61, 130, 200, 239, 240}, {0, 60, 120, 180, 240}};

// o and the gradients of q, k and v, [N, ...] each.
using Results = std::vector<at::Tensor>;
using Mix =
    std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

Results results_of(const Mix& mix, int64_t kv_heads, int64_t begin, int64_t count) {
  const auto input = [&](int64_t heads, uint64_t seed) {
    return test::leaf(random_tensor({kTokens, heads, kHeadDim}, seed).narrow(0, begin, count),
                      at::kFloat);
  };
  const at::Tensor q = input(kHeads, 1), k = input(kv_heads, 2), v = input(kv_heads, 3);
  const at::Tensor o = mix(q, k, v);
  o.backward(random_tensor({kTokens, kHeads, kHeadDim}, 4).narrow(0, begin, count));
  return {o.detach(), q.grad(), k.grad(), v.grad()};
}

// What the parts of all ranks are together. `mix` gets a part and the sequences in it.
Results shared(int64_t size, const std::vector<int64_t>& offsets, int64_t kv_heads,
               const std::function<Mix(const ContextPart&, const Sequences&)>& mix) {
  std::vector<Results> parts(size);
  run_threads(size, 60, [&](Communicator& ranks) {
    const ContextPart part{{&ranks, size}, Sequences(offsets, at::kCPU)};
    const Sequences within(offsets_within(offsets, part.begin(), part.tokens()), at::kCPU);
    parts[ranks.rank()] = results_of(mix(part, within), kv_heads, part.begin(), part.tokens());
  });
  Results together;
  for (size_t i = 0; i < parts[0].size(); ++i) {
    std::vector<at::Tensor> one;
    for (const Results& part : parts) one.push_back(part[i]);
    together.push_back(at::cat(one));
  }
  return together;
}

void expect_same(const Results& got, const Results& want) {
  const char* names[] = {"o", "dq", "dk", "dv"};
  for (size_t i = 0; i < want.size(); ++i) test::expect_rms(names[i], got[i], want[i], 1e-6);
}

TEST(ContextPart, SequencesAreCutWhereItEnds) {
  EXPECT_THAT(offsets_within({0, 10, 20, 30}, 10, 10), ElementsAre(0, 10));
  EXPECT_THAT(offsets_within({0, 10, 20, 30}, 5, 20), ElementsAre(0, 5, 15, 20));
  EXPECT_THAT(offsets_within({0, 30}, 10, 10), ElementsAre(0, 10));
}

TEST(ContextPart, HeadsCanBeShared) {
  std::vector<int64_t> possible;
  for (int64_t n = 1; n <= 12; ++n) {
    if (can_share_heads(n, 12, 2)) possible.push_back(n);
  }
  EXPECT_THAT(possible, ElementsAre(1, 2, 4, 6, 12));
}

TEST(ContextPart, AttentionIsThatOfTheWhole) {
  for (const Kernels kernels : {Kernels::kFast, Kernels::kReference}) {
    const AttentionSettings settings{.scale = 0.3, .kernels = kernels};
    for (const int64_t kv_heads : {1, 2, 4}) {
      for (const auto& offsets : kOffsets) {
        const Mix alone = [&](const auto& q, const auto& k, const auto& v) {
          return causal_attention(q, k, v, Sequences(offsets, at::kCPU), settings);
        };
        const Results want = results_of(alone, kv_heads, 0, kTokens);
        for (const int64_t size : {2, 4}) {
          SCOPED_TRACE(fmt::format("{} ranks, {} key heads, {} sequences", size, kv_heads,
                                   offsets.size() - 1));
          const auto mix = [&](const ContextPart& part, const Sequences&) -> Mix {
            return [&](const auto& q, const auto& k, const auto& v) {
              return context_attention(q, k, v, part, settings);
            };
          };
          expect_same(shared(size, offsets, kv_heads, mix), want);
        }
      }
    }
  }
}

// With the slow decays a state reaches through all parts; with the fast ones it is forgotten in
// less than one.
TEST(ContextPart, LightningIsThatOfTheWhole) {
  const std::vector<std::vector<double>> all_slopes{{0.5, 0.1, 0.01, 0.001}, {4, 3, 2, 1}};
  for (const Kernels kernels : {Kernels::kFast, Kernels::kReference}) {
    for (const auto& slopes : all_slopes) {
      const auto args = [&](const auto& q, const auto& k, const auto& v) {
        return LightningArgs{q, k, v, slopes, 0.3, {}};
      };
      for (const auto& offsets : kOffsets) {
        const Mix alone = [&](const auto& q, const auto& k, const auto& v) {
          return lightning_attention(args(q, k, v), Sequences(offsets, at::kCPU), kernels).o;
        };
        const Results want = results_of(alone, 2, 0, kTokens);
        for (const int64_t size : {2, 4, 6}) {
          SCOPED_TRACE(
              fmt::format("{} ranks, slope {}, {} sequences", size, slopes[3], offsets.size() - 1));
          const auto mix = [&](const ContextPart& part, const Sequences& within) -> Mix {
            return [&](const auto& q, const auto& k, const auto& v) {
              return context_lightning(args(q, k, v), within, part, kernels);
            };
          };
          expect_same(shared(size, offsets, 2, mix), want);
        }
      }
    }
  }
}

}  // namespace
}  // namespace halo
