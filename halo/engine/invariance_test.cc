// What `invariant` promises: the same logits, bit for bit, alone and beside others, however a
// prompt is cut, whether its beginning is computed, reused or restored, whatever is drafted, and on
// any number of threads.
#include <gtest/gtest.h>

#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/engine/generate.h"
#include "halo/model/fp32_vectors.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

struct Case {
  const char* name;
  bool hybrid, bf16;
  KvType kv_type;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

class Invariance : public testing::TestWithParam<Case> {
 protected:
  struct Said {
    std::vector<int64_t> tokens;
    std::vector<float> logits;  // of every token, one after the other
  };

  static std::shared_ptr<const DecoderWeights> model() {
    const ModelConfig config =
        GetParam().hybrid ? test::hybrid_config() : test::transformer_config();
    ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen,
                         GetParam().bf16 ? at::kBFloat16 : at::kFloat, at::kCPU);
    test::fill_random(store, 1, /*unit_embedding=*/true);
    return std::make_shared<const DecoderWeights>(bind_decoder(config, store));
  }

  static SchedulerOptions options(int64_t chunk) {
    SchedulerOptions out =
        scheduler_options(Machine{}, {.kv_type = GetParam().kv_type, .invariant = true});
    out.memory_bytes = 1 << 22;
    out.prefill_chunk = chunk;
    out.block_size = 16;
    out.min_reused = 10;
    return out;
  }

  // A text that repeats itself, so that there is something to draft.
  static Request request() {
    Request out;
    for (int64_t i = 0; i < 150; ++i) out.prompt.push_back(i % 37 + i / 100);
    out.max_tokens = 24;
    out.sample.logit_bias = {{5, 1000}, {6, 1000}};
    return out;
  }

  static Said ask(Scheduler& scheduler, Request asked, const std::vector<Request>& beside = {}) {
    Said said;
    asked.on_logits = [&](std::span<const float> row) {
      said.logits.insert(said.logits.end(), row.begin(), row.end());
    };
    asked.on_token = [&](const TokenEvent& event) {
      said.tokens.push_back(event.token);
      return true;
    };
    std::vector<Request> all = beside;
    all.insert(all.begin() + static_cast<int64_t>(beside.size() / 2), std::move(asked));
    answer(scheduler, std::move(all));
    return said;
  }

  static void expect_same(const char* what, const Said& said, const Said& want) {
    EXPECT_EQ(said.tokens, want.tokens) << what;
    EXPECT_TRUE(said.logits == want.logits) << what;
  }

  const std::shared_ptr<const DecoderWeights> weights_ = model();
  test::Folder folder_;
};

INSTANTIATE_TEST_SUITE_P(, Invariance,
                         testing::Values(Case{"Hybrid", true, false, KvType::kComputed},
                                         Case{"HybridBf16", true, true, KvType::kComputed},
                                         Case{"HybridInt8Keys", true, false, KvType::kInt8},
                                         Case{"HybridBf16Int8Keys", true, true, KvType::kInt8},
                                         Case{"Transformer", false, false, KvType::kComputed},
                                         Case{"TransformerBf16", false, true, KvType::kComputed},
                                         Case{"TransformerInt8Keys", false, false, KvType::kInt8}),
                         [](const auto& info) { return info.param.name; });

TEST_P(Invariance, TheSameBitsInAnyCompanyAndCut) {
  Scheduler alone(weights_, options(1000));
  const Said want = ask(alone, request());
  ASSERT_EQ(want.logits.size(), 24 * weights_->head.value.size(0));
  std::vector<Request> others;
  for (int64_t i = 0; i < 6; ++i) {
    others.push_back({.prompt = test::random_tokens(3 + 40 * i, static_cast<uint64_t>(i)),
                      .max_tokens = 5 + 9 * i});
  }
  for (const int64_t chunk : {7, 64, 1000}) {
    Scheduler scheduler(weights_, options(chunk));
    expect_same("beside others", ask(scheduler, request(), others), want);
    expect_same("reused", ask(scheduler, request()), want);
    EXPECT_GT(scheduler.stats().reused_tokens, 100);
    Request longer = request();
    longer.prompt.resize(90);  // where a prompt that goes on is then parted from
    Scheduler other(weights_, options(chunk));
    ask(other, longer);
    expect_same("behind a shorter one", ask(other, request(), others), want);
  }
  const int threads = at::get_num_threads();
  at::set_num_threads(threads == 1 ? 3 : 1);
  Scheduler threaded(weights_, options(64));
  expect_same("threads", ask(threaded, request(), others), want);
  at::set_num_threads(threads);
}

TEST_P(Invariance, TheSameBitsDraftedAndRestored) {
  Scheduler alone(weights_, options(1000));
  const Said want = ask(alone, request());
  Scheduler scheduler(weights_, options(64));
  Request drafted = request();
  drafted.draft_tokens = 8;
  expect_same("drafted", ask(scheduler, drafted), want);
  EXPECT_GT(scheduler.stats().right_tokens, 0);
  const std::vector<int64_t> prompt = request().prompt;
  ASSERT_EQ(scheduler.save_prefix(folder_ / "s", prompt, 0, {"m", ""}), std::ssize(prompt));
  Scheduler restored(weights_, options(64));
  restored.load_prefix(folder_ / "s", 0, "m");
  expect_same("restored", ask(restored, request()), want);
  EXPECT_EQ(restored.stats().prompt_tokens, 0);
}

TEST(InvarianceRecipe, AGpuIsRefused) {
  Machine machine;
  machine.device = at::Device(at::kCUDA, 0);
  EXPECT_NE(test::error_of([&] { kernels_for(machine, {.invariant = true}); }).find("--device cpu"),
            std::string::npos);
  EXPECT_EQ(kernels_for(machine, {}), Kernels::kFast);
  EXPECT_EQ(kernels_for(Machine{}, {.invariant = true}), Kernels::kReference);
}

}  // namespace
}  // namespace halo
