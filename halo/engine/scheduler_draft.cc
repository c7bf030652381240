// Calls of several tokens a sequence: drafts are fed behind the newest token, and the logits after
// each say whether the next was right. A recurrent state can't be cut, so the moment before the
// call is kept; where a draft was wrong the sequence goes back there, and what came then is fed
// again with the next call.
#include <algorithm>

#include "ATen/ATen.h"
#include "halo/engine/task.h"

namespace halo {

// As far as there is room that nobody uses. Where steps are recorded a sequence drafts while it is
// alone, as many tokens as such a step takes: a call that is not recorded takes longer than several
// that are.
void Scheduler::add_drafts(Pieces& pieces) {
  const int64_t step_tokens = engine_.step_tokens();
  const int64_t that_pay = step_tokens > 0 ? 0 : 8;
  if (std::ssize(pieces) > (step_tokens > 0 ? 1 : kMostDrafting)) return;
  int64_t blocks = engine_.blocks().num_free(), slots = engine_.slots().num_free();
  for (const Piece& piece : pieces) {
    blocks -= engine_.blocks_for(piece.task->sequence->id(), piece.count);
  }
  for (Piece& piece : pieces) {
    Task& task = *piece.task;
    const int64_t left = task.request.max_tokens
                             ? *task.request.max_tokens - task.finish.completion_tokens
                             : task.limit;
    const int64_t room =
        step_tokens > 0 ? step_tokens - piece.count : Task::kMostWindow - 2 * piece.count;
    const int64_t asked = task.request.draft_tokens;
    const int64_t wanted = asked == kDraftsThatPay ? that_pay : asked;
    // One more token follows from the logits behind the drafts.
    const int64_t most = std::min({wanted, room, left - 1, task.limit - task.size() - 1});
    if (slots < 1 || most < 1) continue;
    const int64_t needed = engine_.blocks_for(task.sequence->id(), piece.count + most) -
                           engine_.blocks_for(task.sequence->id(), piece.count);
    if (engine_.options().max_blocks > 0 && needed > blocks) continue;
    task.draft = task.source.propose(task.tokens, most);
    if (task.draft.empty()) continue;
    piece.count += std::ssize(task.draft);
    blocks -= needed;
    --slots;
  }
}

// What a call checks of one sequence, and how far it was right.
struct Scheduler::Window {
  Task* task;
  std::vector<int64_t> draft;
  int64_t row;        // of the logits after its newest token
  int64_t right = 0;  // drafts that came
  std::optional<Engine::Moment>
      moment;  // where the sequence is not: before the call, then after it

  // Whether the next token is one behind the drafts that came.
  bool goes_on(int64_t taken) const { return right == taken && !task->ended; }
};

void Scheduler::run_windows(const Pieces& pieces) {
  std::vector<Window> windows;
  std::vector<int64_t> ids, wanted;
  std::vector<std::vector<int64_t>> fed;
  int64_t rows = 0;
  for (const auto& [task, count] : pieces) {
    Window window{task, std::exchange(task->draft, {}), rows};
    fed.emplace_back(task->tokens.begin() + task->fed, task->tokens.end());
    fed.back().insert(fed.back().end(), window.draft.begin(), window.draft.end());
    ids.push_back(task->sequence->id());
    wanted.push_back(std::ssize(window.draft) + 1);
    rows += wanted.back();
    windows.push_back(std::move(window));
  }
  try {
    for (Window& window : windows) {
      if (!window.draft.empty()) window.moment.emplace(engine_, window.task->sequence->id());
    }
    const at::Tensor logits = engine_.advance(ids, fed, wanted);
    for (Window& window : windows) {
      if (window.moment) {
        window.moment->exchange();
      } else {
        window.task->fed = window.task->size();
      }
    }
    choose_in_windows(windows, logits);
    for (Window& window : windows) settle(window);
  } catch (const std::exception& e) {
    failed(pieces, e.what());
  }
}

// All tokens at once that depend on logits alone; where a request looks at each on its way, one
// after the other.
void Scheduler::choose_in_windows(std::vector<Window>& windows, const at::Tensor& logits) {
  for (int64_t taken = 0;; ++taken) {
    std::vector<Next> next;
    std::vector<int64_t> rows;
    std::vector<Window*> of;
    for (Window& window : windows) {
      const bool at_once = window.task->depends_on_logits_alone();
      if (!window.goes_on(taken) || (at_once && taken > 0)) continue;
      const int64_t last = at_once ? std::ssize(window.draft) : taken;
      for (int64_t drafts = taken; drafts <= last; ++drafts) {
        next.push_back({window.task, drafts - taken});
        rows.push_back(window.row + drafts);
        of.push_back(&window);
      }
    }
    if (next.empty()) return;
    const at::Tensor chosen_from = rows_of(logits, rows);
    std::vector<Choice> choices = read(ask(next, chosen_from));
    for (size_t i = 0; i < next.size(); ++i) {
      Window& window = *of[i];
      if (!window.goes_on(taken + next[i].drafts)) continue;
      take(*window.task, std::move(choices[i]), chosen_from[static_cast<int64_t>(i)]);
      const bool was_right = window.right < std::ssize(window.draft) && !window.task->ended &&
                             window.task->tokens.back() == window.draft[window.right];
      window.right += was_right;
    }
  }
}

// The state behind the drafts stays where all of them came.
void Scheduler::settle(Window& window) {
  if (!window.moment) return;
  Task& task = *window.task;
  const int64_t drafts = std::ssize(window.draft);
  task.source.settle(window.right);
  counters_.draft_tokens += drafts;
  counters_.right_tokens += window.right;
  if (task.ended || window.right < drafts) return;
  window.moment->exchange();
  task.fed = task.size() - 1;
}

}  // namespace halo
