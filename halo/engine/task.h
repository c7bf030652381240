// A request on its way through the scheduler: what scheduler.cc and scheduler_step.cc share.
#pragma once

#include <algorithm>
#include <chrono>
#include <exception>
#include <string>

#include "halo/base/random.h"
#include "halo/engine/draft.h"
#include "halo/engine/scheduler.h"
#include "halo/runtime/device_event.h"

namespace halo {

struct Scheduler::Task {
  using Clock = std::chrono::steady_clock;
  static constexpr int64_t kMostWindow = 32;  // tokens of a sequence in a call of those that decode

  Task(RequestId id, Request of)
      : id(id),
        request(std::move(of)),
        tokens(request.prompt),
        prompt_size(std::ssize(tokens)),
        random(static_cast<uint64_t>(request.seed), "sample",
               static_cast<uint64_t>(request.stream)),
        next_scored(request.prompt_logprobs_from) {
    if (!request.sample.needs_counts()) return;
    for (const int64_t token : tokens) counts[token].in_prompt = true;
  }

  Order order() const { return {-request.priority, id}; }
  int64_t size() const { return std::ssize(tokens); }
  int64_t pending() const { return size() - fed; }
  // The prompt has been fed, and no more of the answer is to be than drafts leave.
  bool decodes() const { return fed >= prompt_size && pending() <= kMostWindow; }
  bool depends_on_logits_alone() const {
    return !request.on_mask && !request.on_logits && !request.sample.needs_counts();
  }
  bool wants_scores() const { return request.prompt_logprobs >= 0; }
  // The place behind what is fed where a snapshot is to be taken, at most `end`.
  int64_t next_mark(int64_t spacing, int64_t end) const {
    if (spacing > 0) end = std::min(end, (fed / spacing + 1) * spacing);
    for (const int64_t mark : marks) {
      if (mark > fed) end = std::min(end, mark);
    }
    return end;
  }
  bool is_marked(int64_t spacing) const {
    return (spacing > 0 && fed % spacing == 0) || std::ranges::count(marks, fed) > 0;
  }

  const RequestId id;
  Request request;
  std::vector<int64_t> tokens;  // the prompt, then the answer
  const int64_t prompt_size;
  int64_t limit = 0;  // of tokens
  const Random random;
  TokenCounts counts;  // where the sampling needs them

  std::optional<OwnedSequence> sequence;  // while it runs
  int64_t fed = 0;                        // the sequence's tokens
  int64_t reading = 0;                    // behind them, in the chunk that is half done
  int64_t shared = 0;                     // of them that it began with
  int64_t reserved = 0;                   // tokens that it had blocks for then
  std::vector<int64_t> marks;             // where other prompts part from this one
  at::Tensor logits;  // [V] after all tokens, where they are known and the next is not
  DraftSource source;
  std::vector<int64_t> draft;  // the tokens that its next call checks
  bool alone = false;          // runs in calls of its own, because a call with others failed
  bool ended = false;

  std::optional<TokenEvent> untold;  // its newest, which on_token is still to be called with
  int64_t prefilled = 0;             // as on_prefill was told
  int64_t next_scored;               // of the prompt's tokens
  Finish finish;
  Clock::time_point submitted = Clock::now();
  std::optional<Clock::time_point> started, first_token;
};

struct Scheduler::Chunk {
  Pieces pieces;
  Pace::Chunk size;
  bool scores;  // hidden states of all tokens are wanted, not of the last of each piece
  Engine::Pass pass;
};

struct Scheduler::Asked {
  std::vector<Next> next;
  at::Tensor logits;   // [next.size(), V] as the model gave them
  at::Tensor answers;  // int64 [2, next.size()], on the host once `arrived` has passed: tokens, and
                       // 0 where a row has no numbers
  DeviceEvent arrived;
};

// Those rows of x, in ascending order.
at::Tensor rows_of(const at::Tensor& x, const std::vector<int64_t>& rows);

template <class Call>
void Scheduler::call_out(Task& task, Call call) {
  try {
    call();
  } catch (const std::exception& e) {
    finish(task, Finish::Reason::kError, e.what());
  }
}

}  // namespace halo
