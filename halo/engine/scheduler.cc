// Who runs, and in which memory.
#include "halo/engine/scheduler.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/engine/draft.h"
#include "halo/engine/pool.h"
#include "halo/engine/task.h"
#include "halo/runtime/memory.h"

namespace halo {
namespace {

constexpr int64_t kNoLimit = int64_t{1} << 40;

constexpr int64_t kMostPrefixes = 256;

// Slots for all that may run, for prefixes and for copies of those that draft, in half of the
// memory at most; blocks in the rest of it, but no more than all of them can fill.
EngineOptions engine_options(const DecoderWeights& weights, const SchedulerOptions& options) {
  HALO_CHECK(options.max_running > 0 && options.prefill_chunk > 0 && options.prefill_share >= 0 &&
                 options.context >= 0,
             "scheduler: max_running {} and prefill_chunk {} must be positive, prefill_share {} "
             "and context {} not negative",
             options.max_running, options.prefill_chunk, options.prefill_share, options.context);
  const StateBytes bytes = state_bytes(weights, options.block_size, options.kv_type);
  if (options.memory_bytes < bytes.slot + bytes.block) {
    throw_error("{:.1f} MB of memory for sequences hold none: one takes {:.1f} MB at least",
                static_cast<double>(options.memory_bytes) / 1e6,
                static_cast<double>(bytes.slot + bytes.block) / 1e6);
  }
  EngineOptions engine{options.kernels, options.block_size, options.prefill_chunk};
  engine.kv_type = options.kv_type;
  engine.forward = options.forward;
  engine.max_slots = options.max_running + (options.reuse_prefixes ? kMostPrefixes : kMostDrafting);
  if (bytes.slot > 0) {
    engine.max_slots =
        std::clamp<int64_t>(options.memory_bytes / 2 / bytes.slot, 1, engine.max_slots);
  }
  if (bytes.block > 0) {
    const int64_t fit = (options.memory_bytes - engine.max_slots * bytes.slot) / bytes.block;
    const int64_t of_one =
        num_blocks(options.context > 0 ? options.context : kNoLimit, options.block_size);
    engine.max_blocks = std::min(fit, engine.max_slots * of_one);
  }
  return engine;
}

// Whether a fork of a sequence of so many tokens takes a block.
bool needs_block(const Engine& engine, int64_t tokens) {
  return engine.options().max_blocks > 0 && tokens % engine.options().block_size != 0;
}

// Where nothing is reused.
std::string miss_reason(const SchedulerOptions& options, const Request& request, int64_t common) {
  if (!options.reuse_prefixes) return "reuse of prefixes is off";
  const int64_t size = std::ssize(request.prompt);
  if (size <= options.min_reused) {
    return fmt::format("the prompt has no more than {} tokens", options.min_reused);
  }
  if (request.prompt_logprobs >= 0 && request.prompt_logprobs_from <= options.min_reused) {
    return "log-probabilities of the prompt are asked from its beginning on";
  }
  if (common == 0) return "nothing that is kept begins with its first token";
  if (common < options.min_reused) {
    return fmt::format("what is kept shares its first {} tokens alone, fewer than {}", common,
                       options.min_reused);
  }
  return fmt::format("what is kept shares its first {} tokens, but has no state there", common);
}

// Tokens of one sequence that all blocks hold.
int64_t most_tokens(const Engine& engine) {
  const EngineOptions& options = engine.options();
  return options.max_blocks > 0 ? options.max_blocks * options.block_size : kNoLimit;
}

}  // namespace

Kernels kernels_for(const Machine& machine, const EngineRecipe& recipe) {
  if (!recipe.invariant) return machine.kernels;
  if (machine.device.is_cuda()) {
    throw_error(
        "--invariant: the kernels of a GPU sum in an order that depends on the batch; give "
        "--device cpu, or leave it out");
  }
  return Kernels::kReference;
}

SchedulerOptions scheduler_options(const Machine& machine, const EngineRecipe& recipe) {
  SchedulerOptions options{.kernels = kernels_for(machine, recipe),
                           .kv_type = recipe.kv_type,
                           .memory_bytes = total_memory(machine) / 2};
  if (machine.device.is_cuda()) {
    options.max_running = 256;
    options.prefill_chunk = 8192;
    options.block_size = 256;
    options.min_reused = 512;  // a fork costs more than a short prompt
    options.tells_beside = true;
  }
  return options;
}

Scheduler::Scheduler(std::shared_ptr<const DecoderWeights> weights, const SchedulerOptions& options)
    : options_(options),
      engine_(weights, engine_options(*weights, options)),
      device_(engine_.weights().embedding.value.device()),
      spacing_(options.reuse_prefixes && !engine_.can_cut() ? options.snapshot_spacing : 0),
      context_(std::min(options.context > 0 ? options.context : kNoLimit, most_tokens(engine_))),
      prefixes_(engine_),
      pace_(engine_.weights()) {
  publish(0);
}

Scheduler::~Scheduler() {
  take_news();
  for (auto* tasks : {&running_, &queue_}) {
    for (auto& [order, task] : *tasks) {
      if (!task->ended) finish(*task, Finish::Reason::kCancelled);
    }
  }
}

RequestId Scheduler::submit(Request request) {
  const int64_t vocabulary = engine_.weights().embedding.value.size(0);
  const int64_t size = std::ssize(request.prompt);
  if (size == 0) throw_error("the prompt is empty");
  for (const int64_t token : request.prompt) {
    if (token < 0 || token >= vocabulary) {
      throw_error("the prompt holds token {}, which is outside the vocabulary of {}", token,
                  vocabulary);
    }
  }
  const int64_t limit = request.context > 0 ? std::min(request.context, context_) : context_;
  const bool answers = request.max_tokens != 0;
  if (request.max_tokens && *request.max_tokens < 0) {
    throw_error("max_tokens must be 0 or more, got {}", *request.max_tokens);
  }
  if (size + (answers ? 1 : 0) > limit) {
    throw_error("the prompt has {} tokens, which leaves no room for an answer: the limit is {}",
                size, limit);
  }
  if (request.prompt_logprobs >= 0 &&
      (request.prompt_logprobs_from < 1 || request.prompt_logprobs_from > size)) {
    throw_error("prompt_logprobs_from must be between 1 and the prompt's {} tokens, got {}", size,
                request.prompt_logprobs_from);
  }
  check_sample_args(request.sample, vocabulary);

  const std::lock_guard lock(mutex_);
  auto task = std::make_unique<Task>(next_id_++, std::move(request));
  task->limit = limit;
  task->finish.prompt_tokens = size;
  incoming_.push_back(std::move(task));
  news_.notify_all();
  return incoming_.back()->id;
}

void Scheduler::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  cancelled_.push_back(id);
  news_.notify_all();
}

SchedulerStats Scheduler::stats() const {
  const std::lock_guard lock(mutex_);
  SchedulerStats stats = stats_;
  stats.queued += std::ssize(incoming_);
  return stats;
}

void Scheduler::do_between_steps(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  works_.push_back(std::move(work));
  news_.notify_all();
}

bool Scheduler::has_news() const {
  return !incoming_.empty() || !cancelled_.empty() || !works_.empty();
}

void Scheduler::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    if (step()) continue;
    std::unique_lock lock(mutex_);
    news_.wait(lock, stop, [&] { return has_news(); });
  }
}

void Scheduler::drain() {
  while (step()) {
  }
}

bool Scheduler::step() {
  const at::NoGradGuard no_grad;
  const auto start = Task::Clock::now();
  take_news();
  admit();
  begin_where_prefixes_end();
  const bool decoded = decode();
  // There nothing of them is left to be done, and who waits for them need not wait for prompts.
  if (!options_.tells_beside) take_all();
  const bool prefilled = prefill();
  take_all();
  sweep();
  const std::chrono::duration<double> time = Task::Clock::now() - start;
  publish(time.count());
  return decoded || prefilled || !queue_.empty();
}

void Scheduler::take_news() {
  std::vector<std::unique_ptr<Task>> incoming;
  std::vector<RequestId> cancelled;
  std::vector<std::function<void()>> works;
  {
    const std::lock_guard lock(mutex_);
    incoming.swap(incoming_);
    cancelled.swap(cancelled_);
    works.swap(works_);
  }
  for (const auto& work : works) work();
  for (auto& task : incoming) {
    tasks_[task->id] = task.get();
    queue_.emplace(task->order(), std::move(task));
  }
  for (const RequestId id : cancelled) {
    const auto it = tasks_.find(id);
    if (it == tasks_.end()) continue;
    if (!leave_chunk(*it->second)) {  // once that is done, a step or some from now
      cancel(id);
      continue;
    }
    finish(*it->second, Finish::Reason::kCancelled);
    const Order order = it->second->order();
    tasks_.erase(it);
    if (queue_.erase(order) == 0) running_.erase(order);
  }
}

void Scheduler::admit() {
  // Those that wait for others are passed by, not many of them.
  int64_t seen = 0;
  for (auto it = queue_.begin(); it != queue_.end() && seen < options_.max_running; ++seen) {
    Task& task = *it->second;
    const Start start = try_start(task);
    if (start == Start::kWaits) {
      ++it;
    } else if (start == Start::kDone) {
      running_.insert(queue_.extract(it++));
    } else {
      Task* lowest = lowest_running();
      if (!lowest || lowest->request.priority >= task.request.priority) return;
      preempt(*lowest);
      sweep();
    }
  }
}

// With all blocks that its tokens so far and the next one need beside those that the others still
// have to come, so that a prompt which was begun gives way only to answers that grow.
Scheduler::Start Scheduler::try_start(Task& task) {
  if (std::ssize(running_) >= options_.max_running) return Start::kNoRoom;
  PrefixCache::Match match;
  const bool reuse = options_.reuse_prefixes;
  if (reuse) {
    const int64_t size = task.size();
    const int64_t most = task.wants_scores() ? task.next_scored - 1 : size;
    match = prefixes_.find(task.request.salt, task.tokens, most);
    if (match.tokens < options_.min_reused) match.node = nullptr;
    if (waits_for_prefix(task, match)) return Start::kWaits;
  }
  const int64_t size = std::min(task.size() + 1, task.limit), block = options_.block_size;
  const bool has_blocks = engine_.options().max_blocks > 0;
  const auto needed = [&] {
    const int64_t shared = match.node ? match.tokens / block : 0;
    return has_blocks ? num_blocks(size, block) - shared + promised_blocks() : 0;
  };
  const auto has_room = [&] {
    return engine_.slots().num_free() > 0 && needed() <= engine_.blocks().num_free();
  };
  if (std::ssize(running_) == engine_.slots().capacity() ||
      needed() + held_blocks() > engine_.blocks().capacity()) {
    return Start::kNoRoom;
  }
  while (!has_room()) {
    if (prefixes_.evict(match.node)) continue;
    if (!match.node) return Start::kNoRoom;
    match.node = nullptr;
  }
  if (match.node) {
    task.sequence.emplace(prefixes_.start(match));
    task.fed = match.tokens;
    task.logits = match.logits;
  } else {
    task.sequence.emplace(engine_);
    task.fed = 0;
  }
  engine_.reserve(task.sequence->id(), size - task.fed);
  task.shared = task.fed;
  task.reserved = size;
  if (match.common < task.size() && match.common >= options_.min_reused && reuse &&
      std::ranges::count(task.marks, match.common) == 0) {
    task.marks.push_back(match.common);
  }
  if (task.started) return Start::kDone;
  task.started = Task::Clock::now();
  task.finish.cached_tokens = task.fed;
  counters_.reused_tokens += task.fed;
  if (task.fed == 0)
    task.finish.cache_miss_reason = miss_reason(options_, task.request, match.common);
  return Start::kDone;
}

// Whether another is about to compute more of its beginning than there is. That one is told where
// they part.
bool Scheduler::waits_for_prefix(const Task& task, const PrefixCache::Match& match) {
  const int64_t there = match.node ? match.tokens : 0;
  for (const auto& [order, other] : running_) {
    if (other->ended || other->request.salt != task.request.salt) continue;
    const int64_t read = other->fed + other->reading;
    if (other->fed >= other->prompt_size) continue;
    const auto parted = std::ranges::mismatch(task.tokens, other->request.prompt);
    int64_t common = parted.in1 - task.tokens.begin();
    if (common < other->prompt_size) common = std::min(common, task.size() - 1);
    if (task.wants_scores()) common = std::min(common, task.next_scored - 1);
    if (common < there + options_.min_reused || read > common) continue;
    if (common < other->prompt_size && std::ranges::count(other->marks, common) == 0) {
      other->marks.push_back(common);
    }
    if (other->fed < common || common == other->prompt_size) return true;
  }
  return false;
}

// By those that run, as far as they are not shared with prefixes that are kept.
int64_t Scheduler::held_blocks() const {
  if (engine_.options().max_blocks == 0) return 0;
  int64_t blocks = 0;
  for (const auto& [order, task] : running_) {
    blocks += num_blocks(std::max(task->fed, task->reserved) - task->shared, options_.block_size);
  }
  return blocks;
}

int64_t Scheduler::promised_blocks() const {
  int64_t blocks = 0;
  for (const auto& [order, task] : running_) {
    const int64_t size = std::min(task->size() + 1, task->limit);
    blocks += std::max<int64_t>(0, engine_.blocks_for(task->sequence->id(), size - task->fed));
  }
  return blocks;
}

Scheduler::Task* Scheduler::lowest_running() {
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    if (!it->second->ended) return it->second.get();
  }
  return nullptr;
}

// It may turn out to have ended instead.
void Scheduler::preempt(Task& task) {
  if (!leave_chunk(task)) {
    finish_chunk();
    take_all();
    if (!task.sequence) return;  // it ended with the chunk, or that failed
  }
  tell(task);
  if (task.ended) return;
  task.sequence.reset();
  task.fed = 0;
  task.logits = at::Tensor();
  task.draft.clear();
  ++counters_.preemptions;
  queue_.insert(running_.extract(task.order()));
}

void Scheduler::make_room(Pieces& pieces) {
  const auto needed = [&] {
    int64_t blocks = 0;
    for (const Piece& piece : pieces) {
      blocks += engine_.blocks_for(piece.task->sequence->id(), piece.count);
    }
    return blocks;
  };
  while (needed() > engine_.blocks().num_free()) {
    if (prefixes_.evict()) continue;
    if (!asked_.empty()) {
      take_all();
      continue;
    }
    preempt(*lowest_running());
    std::erase_if(pieces, [](const Piece& piece) { return !piece.task->sequence; });
  }
}

// Takes a snapshot where the sequence is. `logits` [V] are those after it, or undefined.
void Scheduler::keep_prefix(Task& task, const at::Tensor& logits) {
  if (!options_.reuse_prefixes || task.fed < options_.min_reused) return;
  const std::span<const int64_t> tokens(task.tokens.data(), static_cast<size_t>(task.fed));
  if (prefixes_.contains(task.request.salt, tokens, logits.defined())) return;
  if (!evict_until_free(needs_block(engine_, task.fed) ? 1 : 0, nullptr)) return;
  prefixes_.insert(task.request.salt, tokens,
                   OwnedSequence(engine_, engine_.fork(task.sequence->id())),
                   logits.defined() ? logits.clone() : at::Tensor());
}

// A slot, and so many blocks.
bool Scheduler::evict_until_free(int64_t blocks, const PrefixCache::Node* keep) {
  while (engine_.slots().num_free() == 0 || engine_.blocks().num_free() < blocks) {
    if (!prefixes_.evict(keep)) return false;
  }
  return true;
}

int64_t Scheduler::save_prefix(const std::filesystem::path& path, std::span<const int64_t> tokens,
                               uint64_t salt, const SequenceNote& note) {
  const PrefixCache::Match match = prefixes_.find(salt, tokens, std::ssize(tokens));
  if (!match.node)
    throw_error("{}: nothing of the text is kept that could be saved", path.string());
  if (!evict_until_free(needs_block(engine_, match.tokens) ? 1 : 0, match.node)) {
    throw_error("{}: no memory is free for a copy", path.string());
  }
  const OwnedSequence sequence = prefixes_.start(match);
  save_sequence(path, engine_, sequence.id(), tokens.first(static_cast<size_t>(match.tokens)),
                match.logits, note);
  return match.tokens;
}

Scheduler::SavedPrefix Scheduler::load_prefix(const std::filesystem::path& path, uint64_t salt,
                                              const std::string& model) {
  const int64_t tokens = saved_tokens(path);
  const int64_t blocks =
      engine_.options().max_blocks > 0 ? num_blocks(tokens, options_.block_size) : 0;
  if (tokens >= context_ || !evict_until_free(blocks, nullptr)) {
    throw_error("{}: its {} tokens do not fit; the limit is {}", path.string(), tokens, context_);
  }
  LoadedSequence loaded = load_sequence(path, engine_, model);
  prefixes_.insert(salt, loaded.tokens, std::move(loaded.sequence), loaded.logits);
  publish(0);
  return {std::move(loaded.tokens), std::move(loaded.text)};
}

void Scheduler::forget_prefixes() {
  while (prefixes_.evict()) {
  }
  publish(0);
}

void Scheduler::finish(Task& task, Finish::Reason reason, std::string error) {
  tell(task);
  if (task.ended) return;
  task.ended = true;
  // What it computed stays, with no copy.
  if (task.sequence && task.reading == 0 && reason != Finish::Reason::kError &&
      options_.reuse_prefixes && task.fed >= options_.min_reused) {
    engine_.give_back_spare(task.sequence->id());
    prefixes_.insert(task.request.salt, std::span(task.tokens).first(static_cast<size_t>(task.fed)),
                     std::move(*task.sequence), {});
  }
  task.sequence.reset();
  const auto now = Task::Clock::now();
  const auto seconds = [](auto from, auto to) {
    return std::chrono::duration<double>(to - from).count();
  };
  Finish& finish = task.finish;
  finish.reason = reason;
  finish.error = std::move(error);
  finish.queue_seconds = seconds(task.submitted, task.started.value_or(now));
  if (task.started) {
    const auto first = task.first_token.value_or(now);
    finish.prefill_seconds = seconds(*task.started, first);
    finish.decode_seconds = seconds(first, now);
  }
  if (!task.request.on_finish) return;
  try {
    task.request.on_finish(finish);
  } catch (const std::exception&) {
    // It has ended already, and nobody else is to hear of it.
  }
}

void Scheduler::sweep() {
  std::erase_if(running_, [&](const auto& entry) {
    if (!entry.second->ended) return false;
    tasks_.erase(entry.second->id);
    return true;
  });
}

void Scheduler::publish(double seconds) {
  SchedulerStats stats = counters_;
  stats.queued = std::ssize(queue_);
  stats.running = std::ssize(running_);
  for (const auto& [order, task] : running_) stats.cached_sequence_tokens += task->fed;
  stats.blocks = engine_.blocks().capacity();
  stats.blocks_used = engine_.blocks().num_used();
  stats.slots = engine_.slots().capacity();
  stats.slots_used = engine_.slots().num_used();
  stats.kept_prefixes = prefixes_.size();
  stats.step_seconds = seconds;
  const std::lock_guard lock(mutex_);
  stats_ = stats;
}

}  // namespace halo
