// Requests to a scheduler of a small random model, and what comes of them, shared by this part's
// tests.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "ATen/ATen.h"
#include "halo/base/random.h"
#include "halo/engine/scheduler.h"
#include "halo/model/model_testing.h"

namespace halo::test {

// What came of a request.
struct WatchedAnswer {
  std::vector<int64_t> tokens;
  std::vector<TokenEvent> events, prompt_events;
  Finish finish;
  int ends = 0;
};

inline Request watched(Request request, WatchedAnswer& answer) {
  request.on_token = [&answer](const TokenEvent& event) {
    answer.tokens.push_back(event.token);
    answer.events.push_back(event);
    return true;
  };
  request.on_prompt_tokens = [&answer](std::span<const TokenEvent> events) {
    answer.prompt_events.insert(answer.prompt_events.end(), events.begin(), events.end());
  };
  request.on_finish = [&answer](const Finish& finish) {
    answer.finish = finish;
    ++answer.ends;
  };
  return request;
}

// The same by recomputation of everything for every token.
inline std::vector<int64_t> plain_answer(const DecoderWeights& weights, const Request& request) {
  std::vector<int64_t> tokens = request.prompt;
  const Random random(request.seed, "sample", request.stream);
  TokenCounts counts;
  for (const int64_t token : tokens) counts[token].in_prompt = true;
  for (int64_t i = 0; i < *request.max_tokens; ++i) {
    const at::Tensor hidden = plain_decode(weights, tokens, Kernels::kReference);
    const float uniform = static_cast<float>(random.bits(tokens.size()) >> 40) * 0x1p-24f;
    const SampleRow rows[] = {{&request.sample, uniform, &counts}};
    const at::Tensor row = logits(weights, hidden.slice(0, -1), Kernels::kReference);
    tokens.push_back(sample_tokens(row, rows).item<int64_t>());
    ++counts[tokens.back()].in_answer;
  }
  return {tokens.begin() + std::ssize(request.prompt), tokens.end()};
}

struct SchedulerCase {
  bool hybrid, reuse, tells_beside = false;
  bool by_layers = false;  // prompts beside answers: one layer between two steps
};

// So many blocks and slots of a model.
inline int64_t memory_of(const DecoderWeights& weights, int64_t blocks, int64_t slots) {
  const StateBytes bytes = state_bytes(weights, 4, KvType::kComputed);
  return std::max(blocks * bytes.block + slots * bytes.slot, 2 * slots * bytes.slot);
}

inline void expect_all_free(Scheduler& scheduler) {
  scheduler.forget_prefixes();
  const SchedulerStats stats = scheduler.stats();
  EXPECT_EQ(stats.queued, 0);
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.blocks_used, 0);
  EXPECT_EQ(stats.slots_used, 0);
}

class SchedulerTest : public testing::TestWithParam<SchedulerCase> {
 protected:
  static SchedulerOptions small_options() {
    return {.kernels = Kernels::kReference,
            .max_running = 8,
            .prefill_chunk = 7,
            .prefill_share = GetParam().by_layers ? 1e-9 : 0,
            .block_size = 4,
            .tells_beside = GetParam().tells_beside,
            .reuse_prefixes = GetParam().reuse,
            .min_reused = 3,
            .snapshot_spacing = 8};
  }

  // Prompts of many lengths, greedy and sampled.
  std::vector<Request> requests() const {
    std::vector<Request> out;
    for (int64_t i = 0; i < 9; ++i) {
      Request request;
      request.prompt = random_tokens(1 + i * i % 23, i);
      request.max_tokens = 3 + i;
      request.stream = i;
      request.seed = 5;
      if (i % 3 == 1) request.sample = {.temperature = 1, .top_p = 0.9};
      if (i % 3 == 2) {
        request.sample = {
            .temperature = 0.8, .min_p = 0.05, .repetition_penalty = 1.3, .frequency_penalty = 0.5};
      }
      out.push_back(std::move(request));
    }
    return out;
  }

  std::vector<WatchedAnswer> run(const SchedulerOptions& options,
                                 const std::vector<Request>& requests,
                                 SchedulerStats* stats = nullptr) const {
    Scheduler scheduler(weights_, options);
    std::vector<WatchedAnswer> answers(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      scheduler.submit(watched(requests[i], answers[i]));
    }
    scheduler.drain();
    if (stats) *stats = scheduler.stats();
    expect_all_free(scheduler);
    return answers;
  }

  void expect_plain(const std::vector<Request>& requests,
                    const std::vector<WatchedAnswer>& answers) const {
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, plain_answer(*weights_, requests[i])) << i;
      EXPECT_EQ(answers[i].ends, 1);
      EXPECT_EQ(answers[i].finish.reason, Finish::Reason::kLength) << answers[i].finish.error;
      EXPECT_EQ(answers[i].finish.prompt_tokens, std::ssize(requests[i].prompt));
      EXPECT_EQ(answers[i].finish.completion_tokens, *requests[i].max_tokens);
    }
  }

  std::shared_ptr<const DecoderWeights> weights_ =
      random_model(GetParam().hybrid ? hybrid_config() : transformer_config());
};

}  // namespace halo::test
