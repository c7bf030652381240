// What a step does: a decoder call for all that decode, some layers of a chunk of prompts, and the
// tokens that follow from both.
#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/engine/task.h"

namespace halo {
namespace {

// Where chunks end if they may: at the kernels' own chunks.
constexpr int64_t kGrid = 64;
// A GPU's attention to a long past pads the tokens of a chunk to a multiple of this, and makes a
// plan for each multiple (attention_pieces.cc).
constexpr int64_t kQueries = 1024;
// So longer chunks have that many, twice, four times.. of at most so many.
int64_t as_planned(int64_t tokens) {
  int64_t planned = std::min(tokens, kQueries);
  while (2 * planned <= tokens) planned *= 2;
  return planned;
}

// 24 bits, so that fp32 holds it exactly.
float uniform_of(const Random& random, int64_t position) {
  return static_cast<float>(random.bits(static_cast<uint64_t>(position)) >> 40) * 0x1p-24f;
}

// The first line: what follows in LibTorch's errors is of no use to who asked.
std::string first_line(const std::string& what) {
  return what.substr(0, what.find('\n'));
}

}  // namespace

at::Tensor rows_of(const at::Tensor& x, const std::vector<int64_t>& rows) {
  if (std::ssize(rows) == x.size(0)) return x;
  return x.index_select(0, to_device(at::tensor(rows, at::kLong), x.device()));
}

// Those whose prompts are all there: the next token follows from logits that were kept.
void Scheduler::begin_where_prefixes_end() {
  Tasks tasks;
  std::vector<at::Tensor> rows;
  for (const auto& [order, task] : running_) {
    if (!task->logits.defined()) continue;
    const at::Tensor row = std::exchange(task->logits, {});
    report_prefill(*task);
    if (task->request.max_tokens == 0) finish(*task, Finish::Reason::kLength);
    if (task->ended) continue;
    rows.push_back(row);
    tasks.push_back(task.get());
  }
  if (!tasks.empty()) {
    ask_for_next(tasks, at::stack(rows));
    take_all();
  }
  sweep();
}

void Scheduler::report_prefill(Task& task) {
  const int64_t done = std::min(task.fed, task.prompt_size);
  if (task.request.on_prefill && !task.ended && done > task.prefilled) {
    call_out(task, [&] { task.request.on_prefill(done, task.prompt_size); });
  }
  task.prefilled = std::max(task.prefilled, done);
}

bool Scheduler::decode() {
  Pieces together;
  std::vector<Pieces> calls;
  for (const auto& [order, task] : running_) {
    if (!task->decodes()) continue;
    const Piece piece{task.get(), task->pending()};
    if (task->alone) {
      calls.push_back({piece});
    } else {
      together.push_back(piece);
    }
  }
  add_drafts(together);
  // What has several tokens to be fed goes by itself where the others' step is recorded.
  const auto several = std::stable_partition(
      together.begin(), together.end(),
      [&](const Piece& piece) { return piece.count == 1 || engine_.step_tokens() == 0; });
  if (several != together.end()) {
    calls.emplace_back(several, together.end());
    together.erase(several, together.end());
  }
  if (!together.empty()) calls.push_back(std::move(together));
  if (calls.empty()) return false;
  const DeviceEvent begin(device_);
  for (Pieces& pieces : calls) {
    // A recorded step overwrites the logits of the one before.
    take_all();
    // The calls before may have made it give way.
    std::erase_if(pieces, [](const Piece& piece) { return !piece.task->sequence; });
    make_room(pieces);
    if (pieces.empty()) continue;
    const bool one_each = std::ranges::all_of(pieces, [](const Piece& p) { return p.count == 1; });
    one_each ? run_decode(pieces) : run_windows(pieces);
  }
  pace_.watch_step(begin, DeviceEvent(device_));
  return true;
}

void Scheduler::run_decode(const Pieces& pieces) {
  Tasks tasks;
  std::vector<int64_t> ids;
  std::vector<std::vector<int64_t>> tokens;
  for (const Piece& piece : pieces) {
    tasks.push_back(piece.task);
    ids.push_back(piece.task->sequence->id());
    tokens.push_back({piece.task->tokens.back()});
  }
  try {
    const at::Tensor logits = engine_.advance(ids, tokens);
    for (Task* task : tasks) ++task->fed;
    ask_for_next(tasks, logits);
  } catch (const std::exception& e) {
    failed(pieces, e.what());
  }
}

bool Scheduler::prefill() {
  pace_.look();
  if (!chunk_) {
    Pieces pieces = next_chunk();
    if (pieces.empty()) return false;
    make_room(pieces);
    if (!pieces.empty()) begin_chunk(pieces);
  }
  if (chunk_) run_chunk(seconds_for_prompts());
  return true;
}

// Until those that decode have their next step.
double Scheduler::seconds_for_prompts() const {
  const int64_t waiting =
      std::ranges::count_if(running_, [](const auto& entry) { return !entry.second->decodes(); });
  if (options_.prefill_share == 0 || waiting == std::ssize(running_)) return Pace::kNoLimit;
  return options_.prefill_share * static_cast<double>(waiting) * pace_.step_seconds();
}

// Half of it at least is for the first in order, so that it ends; the rest goes to those that have
// less to read than it, the shortest first. Where none has, it is all the first one's: a call of
// several prompts takes longer.
Scheduler::Pieces Scheduler::next_chunk() const {
  Tasks waiting;
  for (const auto& [order, task] : running_) {
    if (!task->decodes() && !task->ended) waiting.push_back(task.get());
  }
  if (waiting.empty()) return {};
  Task* head = waiting.front();
  std::erase_if(waiting, [&](const Task* task) { return task == head || task->alone; });
  if (head->alone) waiting.clear();
  const auto place = [](const Task* task) {
    return std::pair(-task->request.priority, task->pending());
  };
  std::ranges::stable_sort(waiting, {}, place);
  const auto longer = std::ranges::lower_bound(waiting, place(head), {}, place);
  const double in_time = pace_.tokens_within(seconds_for_prompts(), head->fed);
  int64_t left = options_.prefill_chunk;
  if (in_time < static_cast<double>(left)) {
    left = std::min(left, as_planned(std::max(kGrid, static_cast<int64_t>(in_time))));
  }
  const auto room = [&](const Task& task) {
    return task.next_mark(spacing_, task.size()) - task.fed;
  };
  Pieces pieces{{head, 0}};
  const auto take = [&](Piece& piece, int64_t most) {
    const int64_t taken = std::min(room(*piece.task) - piece.count, most);
    piece.count += taken;
    left -= taken;
  };
  const auto take_of = [&](auto begin, auto end) {
    for (; begin != end && left > 0; ++begin) {
      pieces.push_back({*begin, 0});
      take(pieces.back(), left);
    }
  };
  take(pieces.front(), (left + 1) / 2);
  take_of(waiting.begin(), longer);
  take(pieces.front(), left);
  take_of(longer, waiting.end());
  for (auto& [task, count] : pieces) {
    const int64_t aligned = (task->fed + count) / kGrid * kGrid;
    if (count < room(*task) && aligned > task->fed) count = aligned - task->fed;
  }
  return pieces;
}

void Scheduler::begin_chunk(const Pieces& pieces) {
  std::vector<int64_t> ids;
  std::vector<std::vector<int64_t>> tokens;
  Pace::Chunk size;
  bool scores = false;
  for (const auto& [task, count] : pieces) {
    ids.push_back(task->sequence->id());
    const auto begin = task->tokens.begin() + task->fed;
    tokens.emplace_back(begin, begin + count);
    size.add(count, task->fed);
    scores |= task->wants_scores();
  }
  try {
    chunk_.reset(
        new Chunk{pieces, size, scores,
                  engine_.begin(ids, tokens, scores ? Engine::Rows::kAll : Engine::Rows::kLast)});
    for (const auto& [task, count] : pieces) task->reading = count;
  } catch (const std::exception& e) {
    failed(pieces, e.what());
  }
}

// As many layers as take so long.
void Scheduler::run_chunk(double seconds) {
  try {
    Engine::Pass& pass = chunk_->pass;
    const int64_t end = pass.layer() + pace_.layers_within(seconds, pass.layer(), chunk_->size);
    for (DeviceEvent begin(device_); pass.layer() < end;) {
      const int64_t layer = pass.layer();
      pass.run();
      const DeviceEvent done(device_);
      pace_.watch_layer(layer, chunk_->size, begin, done);
      begin = done;
    }
    if (!pass.done()) return;
  } catch (const std::exception& e) {
    failed(take_chunk()->pieces, e.what());
    return;
  }
  const std::unique_ptr<Chunk> chunk = take_chunk();
  try {
    end_chunk(*chunk, chunk->pass.hidden());
  } catch (const std::exception& e) {
    failed(chunk->pieces, e.what());
  }
}

void Scheduler::finish_chunk() {
  if (chunk_) run_chunk(Pace::kNoLimit);
}

std::unique_ptr<Scheduler::Chunk> Scheduler::take_chunk() {
  for (const Piece& piece : chunk_->pieces) piece.task->reading = 0;
  return std::move(chunk_);
}

// Whether the task is in no chunk that is half done: one that it is alone in is dropped. States of
// the layers that were run have gone on, and the sequence goes with them; keys and values behind
// its end are as if they were not there.
bool Scheduler::leave_chunk(Task& task) {
  if (task.reading == 0) return true;
  if (chunk_->pieces.size() > 1) return false;
  take_chunk();
  if (!engine_.can_cut()) task.sequence.reset();
  return true;
}

// `hidden` are those of all tokens where there are scores, else of the last of each piece.
void Scheduler::end_chunk(const Chunk& chunk, const at::Tensor& hidden) {
  Tasks ready;
  std::vector<int64_t> rows;  // of hidden: after the last token of each that is ready
  int64_t row = 0;
  for (const auto& [task, count] : chunk.pieces) {
    const int64_t height = chunk.scores ? count : 1;
    if (task->wants_scores()) score_prompt(*task, count, hidden.narrow(0, row, height));
    row += height;
    task->fed += count;
    counters_.prompt_tokens += count;
    report_prefill(*task);
    if (task->ended) continue;
    if (task->pending() > 0) {
      if (task->is_marked(spacing_)) keep_prefix(*task, {});
      continue;
    }
    if (task->request.max_tokens == 0) {
      finish(*task, Finish::Reason::kLength);
    } else {
      ready.push_back(task);
      rows.push_back(row - 1);
    }
  }
  if (!ready.empty()) ask_for_next(ready, engine_.logits(rows_of(hidden, rows)));
}

// hidden [count, D]: after each of the `count` tokens from task.fed on.
void Scheduler::score_prompt(Task& task, int64_t count, const at::Tensor& hidden) {
  constexpr int64_t kMaxLogits = int64_t{1} << 26;  // 256 MB in fp32
  const int64_t most = std::max<int64_t>(1, kMaxLogits / engine_.weights().head.value.size(0));
  const int64_t end = std::min(task.fed + count + 1, task.prompt_size);
  for (int64_t first = std::max(task.next_scored, task.fed + 1); first < end && !task.ended;) {
    const int64_t n = std::min(most, end - first);
    const std::span<const int64_t> tokens(&task.tokens[first], static_cast<size_t>(n));
    const at::Tensor logits = engine_.logits(hidden.narrow(0, first - 1 - task.fed, n));
    TokenLogprobs scored = token_logprobs(logits, tokens, task.request.prompt_logprobs);
    std::vector<TokenEvent> events;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (std::isnan(scored.chosen[i])) {
        finish(task, Finish::Reason::kError,
               fmt::format("the model's logits after {} tokens are no numbers", first + i));
        return;
      }
      events.push_back({tokens[i], scored.chosen[i], std::move(scored.top[i])});
    }
    first += n;
    task.next_scored = first;
    if (!task.request.on_prompt_tokens) continue;
    call_out(task, [&] { task.request.on_prompt_tokens(events); });
  }
}

void Scheduler::show_logits(const std::vector<Next>& next, const at::Tensor& logits) {
  for (size_t i = 0; i < next.size(); ++i) {
    Task& task = *next[i].task;
    if (!task.request.on_logits || task.ended) continue;
    const at::Tensor own = logits[static_cast<int64_t>(i)].cpu().contiguous();
    const std::span values(own.const_data_ptr<float>(), static_cast<size_t>(own.numel()));
    call_out(task, [&] { task.request.on_logits(values); });
  }
}

// Only the bits go to the device, and nothing comes from it: a grammar works while the decoder
// does.
at::Tensor Scheduler::masked_by_requests(const std::vector<Next>& next, const at::Tensor& logits) {
  std::vector<int64_t> rows;
  for (size_t i = 0; i < next.size(); ++i) {
    if (next[i].task->request.on_mask && !next[i].task->ended)
      rows.push_back(static_cast<int64_t>(i));
  }
  if (rows.empty()) return logits;
  const int64_t words = mask_words(logits.size(1));
  const at::Tensor allowed = at::full({std::ssize(rows), words}, -1, at::kInt);
  auto* bits = reinterpret_cast<uint32_t*>(allowed.mutable_data_ptr<int32_t>());
  for (const int64_t row : rows) {
    Task& task = *next[static_cast<size_t>(row)].task;
    call_out(task, [&] { task.request.on_mask(std::span(bits, static_cast<size_t>(words))); });
    bits += words;
  }
  return mask_logits(logits, rows, allowed);
}

// The device has its work: who waits for tokens hears of the last ones meanwhile.
Scheduler::Asked Scheduler::ask(std::vector<Next> next, const at::Tensor& logits) {
  for (const auto& [order, task] : running_) tell(*task);
  show_logits(next, logits);
  const at::Tensor changed = masked_by_requests(next, logits);
  std::vector<SampleRow> rows;
  for (const auto& [task, drafts] : next) {
    rows.push_back(
        {&task->request.sample, uniform_of(task->random, task->size() + drafts), &task->counts});
  }
  // NaN where one of them is.
  const at::Tensor good = changed.amax(1).isfinite().to(at::kLong);
  const at::Tensor answers =
      at::stack({sample_tokens(changed, rows), good}).to(at::kCPU, /*non_blocking=*/true);
  return {std::move(next), logits, answers, DeviceEvent(logits.device())};
}

// Waits for the device, as `on_logits` and scored prompts do, and nothing else.
std::vector<Scheduler::Choice> Scheduler::read(const Asked& asked) {
  asked.arrived.wait();
  const auto& next = asked.next;
  const auto result = asked.answers.accessor<int64_t, 2>();
  std::vector<Choice> choices(next.size());
  std::vector<int64_t> scored, scored_tokens;
  int64_t top = 0;
  for (size_t i = 0; i < next.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    if (result[1][row] == 0) continue;
    choices[i] = TokenEvent{result[0][row]};
    const int64_t wanted = next[i].task->request.top_logprobs;
    if (wanted < 0) continue;
    scored.push_back(row);
    scored_tokens.push_back(choices[i]->token);
    top = std::max(top, wanted);
  }
  if (scored.empty()) return choices;
  TokenLogprobs found = token_logprobs(rows_of(asked.logits, scored), scored_tokens, top);
  for (size_t i = 0; i < scored.size(); ++i) {
    const auto row = static_cast<size_t>(scored[i]);
    const auto wanted = static_cast<size_t>(next[row].task->request.top_logprobs);
    choices[row]->logprob = found.chosen[i];
    choices[row]->top = std::move(found.top[i]);
    choices[row]->top.resize(std::min(choices[row]->top.size(), wanted));
  }
  return choices;
}

void Scheduler::ask_for_next(const Tasks& tasks, const at::Tensor& logits) {
  std::vector<Next> next;
  for (Task* task : tasks) next.push_back({task});
  asked_.push_back(ask(std::move(next), logits));
}

void Scheduler::take_all() {
  for (const Asked& asked : std::exchange(asked_, {})) {
    try {
      std::vector<Choice> choices = read(asked);
      for (size_t i = 0; i < choices.size(); ++i) {
        take(*asked.next[i].task, std::move(choices[i]), asked.logits[static_cast<int64_t>(i)]);
      }
    } catch (const std::exception& e) {
      Pieces pieces;
      for (const Next& next : asked.next) pieces.push_back({next.task, 1});
      failed(pieces, e.what());
    }
  }
}

// `logits` [V]: those that the choice is from.
void Scheduler::take(Task& task, Choice choice, const at::Tensor& logits) {
  if (task.ended) return;
  if (!choice) {
    const char* why = task.request.on_mask ? "leave no token to choose" : "are no numbers";
    finish(task, Finish::Reason::kError,
           fmt::format("the model's logits after {} tokens {}", task.size(), why));
    return;
  }
  if (task.size() == task.prompt_size) keep_prefix(task, logits);
  deliver(task, *std::move(choice));
}

void Scheduler::deliver(Task& task, TokenEvent event) {
  tell(task);  // of the one before, which may have been the last that it wants
  if (task.ended) return;
  task.alone = false;
  if (!task.first_token) task.first_token = Task::Clock::now();
  const Request& request = task.request;
  ++task.finish.completion_tokens;
  ++counters_.generated_tokens;
  if (std::ranges::count(request.stop_ids, event.token) > 0) {
    task.finish.end_token = event.token;
    finish(task, Finish::Reason::kStop);
    return;
  }
  task.tokens.push_back(event.token);
  if (request.sample.needs_counts()) ++task.counts[event.token].in_answer;
  task.untold = std::move(event);
  if (!options_.tells_beside) tell(task);
  if (task.finish.completion_tokens == request.max_tokens || task.size() >= task.limit) {
    finish(task, Finish::Reason::kLength);
  }
}

void Scheduler::tell(Task& task) {
  if (!task.untold) return;
  const TokenEvent event = *std::exchange(task.untold, std::nullopt);
  bool more = true;
  if (task.request.on_token) call_out(task, [&] { more = task.request.on_token(event); });
  if (!more) finish(task, Finish::Reason::kStop);
}

// Which of several was at fault shows when each runs by itself, from its start.
void Scheduler::failed(const Pieces& pieces, const std::string& what) {
  for (const auto& [task, count] : pieces) {
    if (task->ended) continue;
    // Half a call may be in it: nothing of it is kept, whatever ends the request first.
    task->sequence.reset();
    if (pieces.size() == 1 || task->alone) {
      finish(*task, Finish::Reason::kError, first_line(what));
    } else {
      task->alone = true;
      preempt(*task);
    }
  }
}

}  // namespace halo
