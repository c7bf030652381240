// Calls of several tokens a sequence: drafts are fed behind the newest token, and the logits after
// each say whether the next was right. A recurrent state can't be cut, so a copy of the sequence
// from before the call stays where one was wrong; what came then is fed again with the next call.
#include <algorithm>

#include "ATen/ATen.h"
#include "halo/engine/task.h"

namespace halo {

// As far as there is room that nobody uses. Not on a GPU, where a recorded step of one token takes
// a fraction of what a call of several does (docs/results/drafts.md).
void Scheduler::add_drafts(Pieces& pieces) {
  const bool records_steps = engine_.weights().embedding.value.is_cuda();
  if (records_steps || std::ssize(pieces) > kMostDrafting) return;
  int64_t blocks = engine_.blocks().num_free(), slots = engine_.slots().num_free();
  for (const Piece& piece : pieces) {
    blocks -= engine_.blocks_for(piece.task->sequence->id(), piece.count);
  }
  for (Piece& piece : pieces) {
    Task& task = *piece.task;
    const int64_t left = task.request.max_tokens
                             ? *task.request.max_tokens - task.finish.completion_tokens
                             : task.limit;
    // One more token follows from the logits behind the drafts.
    const int64_t most = std::min({task.request.draft_tokens, Task::kMostWindow - 2 * piece.count,
                                   left - 1, task.limit - task.size() - 1});
    if (slots < 1 || most < 1) continue;
    // The copy takes a block, and the drafts what they fill.
    const int64_t needed = engine_.blocks_for(task.sequence->id(), piece.count + most) -
                           engine_.blocks_for(task.sequence->id(), piece.count) + 1;
    if (engine_.options().max_blocks > 0 && needed > blocks) continue;
    task.draft = task.source.propose(task.tokens, most);
    if (task.draft.empty()) continue;
    piece.count += std::ssize(task.draft);
    blocks -= needed;
    --slots;
  }
}

void Scheduler::run_windows(const Pieces& pieces) {
  struct Window {
    Task* task;
    std::vector<int64_t> draft;
    int64_t row;                           // of the logits after its newest token
    int64_t right = 0;                     // drafts that came
    std::optional<OwnedSequence> checked;  // with all drafts
  };
  std::vector<Window> windows;
  std::vector<int64_t> ids, rows;
  std::vector<std::vector<int64_t>> fed;
  int64_t end = 0;
  for (const auto& [task, count] : pieces) {
    Window window{task, std::exchange(task->draft, {}), std::ssize(rows)};
    fed.emplace_back(task->tokens.begin() + task->fed, task->tokens.end());
    fed.back().insert(fed.back().end(), window.draft.begin(), window.draft.end());
    ids.push_back(task->sequence->id());
    end += count;
    for (int64_t row = end - std::ssize(window.draft) - 1; row < end; ++row) rows.push_back(row);
    windows.push_back(std::move(window));
  }
  try {
    std::vector<std::optional<OwnedSequence>> before(windows.size());
    for (size_t i = 0; i < windows.size(); ++i) {
      if (!windows[i].draft.empty()) before[i].emplace(windows[i].task->sequence->fork());
    }
    const at::Tensor hidden = engine_.extend(ids, fed, Engine::Rows::kAll);
    const at::Tensor logits = engine_.logits(rows_of(hidden, rows));
    for (size_t i = 0; i < windows.size(); ++i) {
      Task& task = *windows[i].task;
      if (before[i]) {
        windows[i].checked = std::exchange(task.sequence, std::move(before[i]));
      } else {
        task.fed = task.size();
      }
    }
    // The tokens behind so many drafts that were right.
    for (int64_t depth = 0;; ++depth) {
      Tasks tasks;
      std::vector<int64_t> next;
      for (const Window& window : windows) {
        if (window.right != depth || window.task->ended) continue;
        tasks.push_back(window.task);
        next.push_back(window.row + depth);
      }
      if (tasks.empty()) break;
      choose_tokens(tasks, rows_of(logits, next));
      for (Window& window : windows) {
        const bool was_right = window.right == depth && depth < std::ssize(window.draft) &&
                               window.task->tokens.back() == window.draft[depth];
        if (was_right && !window.task->ended) ++window.right;
      }
    }
    for (Window& window : windows) {
      if (!window.checked) continue;
      Task& task = *window.task;
      const int64_t drafts = std::ssize(window.draft);
      task.source.settle(window.right);
      counters_.draft_tokens += drafts;
      counters_.right_tokens += window.right;
      if (task.ended || window.right < drafts) continue;
      task.sequence = std::move(window.checked);
      task.fed = task.size() - 1;
    }
  } catch (const std::exception& e) {
    failed(pieces, e.what());
  }
}

}  // namespace halo
