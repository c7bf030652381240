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

  // Whether the next token is to be the one behind so many drafts.
  bool goes_on(int64_t drafts) const { return right == drafts && !task->ended; }
  // Whether the newest token is the draft behind so many.
  bool came(int64_t drafts) const {
    return drafts < std::ssize(draft) && !task->ended && task->tokens.back() == draft[drafts];
  }
};

// The token behind so many of a window's drafts.
struct Scheduler::Place {
  Window* window;
  int64_t drafts;
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

// Where tokens depend on logits alone all of a window's are chosen together; where a request looks
// at each on its way, one after the other.
void Scheduler::choose_in_windows(std::vector<Window>& windows, const at::Tensor& logits) {
  std::vector<Place> together;
  for (Window& window : windows) {
    if (!window.task->depends_on_logits_alone() || !window.goes_on(0)) continue;
    for (int64_t drafts = 0; drafts <= std::ssize(window.draft); ++drafts) {
      together.push_back({&window, drafts});
    }
  }
  choose_behind_drafts(together, logits);
  for (int64_t drafts = 0;; ++drafts) {
    std::vector<Place> next;
    for (Window& window : windows) {
      const bool one_by_one = !window.task->depends_on_logits_alone();
      if (one_by_one && window.goes_on(drafts)) next.push_back({&window, drafts});
    }
    if (next.empty()) return;
    choose_behind_drafts(next, logits);
  }
}

// Of the tokens chosen for a window those are taken that stand behind drafts which came.
void Scheduler::choose_behind_drafts(const std::vector<Place>& places, const at::Tensor& logits) {
  if (places.empty()) return;
  std::vector<Next> next;
  std::vector<int64_t> rows;
  for (const auto& [window, drafts] : places) {
    next.push_back({window->task, drafts - window->right});
    rows.push_back(window->row + drafts);
  }
  const at::Tensor chosen_from = rows_of(logits, rows);
  std::vector<Choice> choices = read(ask(std::move(next), chosen_from));
  for (size_t i = 0; i < places.size(); ++i) {
    const auto& [window, drafts] = places[i];
    if (!window->goes_on(drafts)) continue;
    take(*window->task, std::move(choices[i]), chosen_from[static_cast<int64_t>(i)]);
    window->right += window->came(drafts);
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
