// Continuous batching: requests that come and go share the decoder calls of one Engine. A step is
// one call for all sequences that decode, then as many layers of a chunk of prompts as take a share
// of that call's time, or the whole chunk where nobody decodes. A short prompt waits for no more
// than two chunks behind one of any length. Memory is fixed; where it ends the request that came
// last among those of lowest priority gives way and is computed again later, to the same tokens.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <unordered_map>
#include <vector>

#include "halo/engine/engine.h"
#include "halo/engine/pace.h"
#include "halo/engine/prefix_cache.h"
#include "halo/engine/request.h"
#include "halo/engine/sequence_file.h"
#include "halo/runtime/machine.h"

namespace halo {

struct SchedulerOptions {
  Kernels kernels = Kernels::kFast;
  KvType kv_type = KvType::kComputed;
  int64_t memory_bytes = int64_t{1} << 30;  // of keys, values and states
  int64_t context = 0;          // tokens of a prompt and its answer at most; 0: as many as fit
  int64_t max_running = 64;     // requests in decoder calls at a time, at most
  int64_t prefill_chunk = 512;  // tokens of prompts in one call, at most
  // Time of such calls between two steps of those that decode, for each prompt that waits, as a
  // share of what a step takes; 0: a whole call, however long.
  double prefill_share = 0;
  int64_t block_size = 64;  // tokens a K/V block
  // A token's request is told of it once the device has the next step to do; on a GPU, whose calls
  // return at once.
  bool tells_beside = false;
  // What was computed is kept as long as there is memory, and a prompt that begins so starts behind
  // it: after prompts and answers, cancelled ones too, where two prompts parted, and every
  // snapshot_spacing tokens of a prompt.
  bool reuse_prefixes = true;
  int64_t min_reused = 64;  // tokens that are worth it
  int64_t snapshot_spacing = 8192;
  decltype(EngineOptions::forward) forward = {};  // the engine's
};
// For one model that has the machine for itself: half of its memory. An Error where the recipe asks
// for what the machine cannot do.
SchedulerOptions scheduler_options(const Machine& machine, const EngineRecipe& recipe = {});
// The form that the machine runs so: an Error where there is none.
Kernels kernels_for(const Machine& machine, const EngineRecipe& recipe);

struct SchedulerStats {
  int64_t queued = 0, running = 0;
  int64_t cached_sequence_tokens = 0;  // held in keys, values or states, of running requests
  int64_t blocks_used = 0, blocks = 0;
  int64_t slots_used = 0, slots = 0;
  int64_t kept_prefixes = 0;  // their blocks and slots are used ones
  // Since the beginning.
  int64_t prompt_tokens = 0;  // computed, those computed again included
  int64_t reused_tokens = 0;  // not computed
  int64_t generated_tokens = 0;
  int64_t draft_tokens = 0;  // checked
  int64_t right_tokens = 0;  // of them, so many that came
  int64_t preemptions = 0;
  double step_seconds = 0;  // of the last step
};

class Scheduler {
 public:
  // An Error where memory_bytes holds no sequence.
  Scheduler(std::shared_ptr<const DecoderWeights> weights, const SchedulerOptions& options);
  // Requests that have not ended are cancelled.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // From any thread. An Error on what can never run; nothing of it is called then.
  RequestId submit(Request request);
  // From any thread, at any moment, also of requests that have ended.
  void cancel(RequestId id);
  SchedulerStats stats() const;  // from any thread; as of the last step, `queued` as of now
  // From any thread: the driving one calls `work` before its next step, which is soon where it
  // runs. It must not throw.
  void do_between_steps(std::function<void()> work);

  // By one thread at a time: one step; false where there is nothing to do.
  bool step();
  // Steps until nothing is left.
  void drain();
  // Drops what was kept to be reused. By the driving thread, as the following.
  void forget_prefixes();
  // Writes the longest beginning of `tokens` that is kept; how many tokens that is. An Error where
  // there is none.
  int64_t save_prefix(const std::filesystem::path& path, std::span<const int64_t> tokens,
                      uint64_t salt, const SequenceNote& note);
  // Keeps what such a file holds, to be reused.
  struct SavedPrefix {
    std::vector<int64_t> tokens;
    std::string text;
  };
  SavedPrefix load_prefix(const std::filesystem::path& path, uint64_t salt,
                          const std::string& model);
  // Steps, and waits where there is nothing to do, until told to stop.
  void run(const std::stop_token& stop);

  int64_t context() const { return context_; }  // the limit
  const Engine& engine() const { return engine_; }

 private:
  struct Task;
  // Who goes first: by priority, then by age.
  struct Order {
    int64_t falling_priority;
    RequestId id;
    auto operator<=>(const Order&) const = default;
  };
  // Tokens of one request in a decoder call.
  struct Piece {
    Task* task;
    int64_t count;
  };
  using Tasks = std::vector<Task*>;
  using Pieces = std::vector<Piece>;

  // Who runs (scheduler.cc).
  void take_news();
  bool has_news() const;
  void admit();
  enum class Start { kDone, kNoRoom, kWaits };  // kWaits: for what another is computing
  Start try_start(Task& task);
  bool waits_for_prefix(const Task& task, const PrefixCache::Match& match);
  int64_t promised_blocks() const;
  int64_t held_blocks() const;
  Task* lowest_running();
  void preempt(Task& task);
  void make_room(Pieces& pieces);
  void keep_prefix(Task& task, const at::Tensor& logits);
  bool evict_until_free(int64_t blocks, const PrefixCache::Node* keep);
  void finish(Task& task, Finish::Reason reason, std::string error = {});
  void sweep();
  void publish(double seconds);

  // What a step does (scheduler_step.cc).
  bool decode();
  bool prefill();
  void begin_where_prefixes_end();
  void report_prefill(Task& task);
  double seconds_for_prompts() const;
  Pieces next_chunk() const;
  void run_decode(const Pieces& pieces);
  void add_drafts(Pieces& pieces);         // scheduler_draft.cc
  void run_windows(const Pieces& pieces);  // scheduler_draft.cc
  struct Window;
  struct Place;
  void choose_in_windows(std::vector<Window>& windows, const at::Tensor& logits);
  void choose_behind_drafts(const std::vector<Place>& places, const at::Tensor& logits);
  void settle(Window& window);
  struct Chunk;
  void begin_chunk(const Pieces& pieces);
  void run_chunk(double seconds);
  void finish_chunk();
  std::unique_ptr<Chunk> take_chunk();
  bool leave_chunk(Task& task);
  void end_chunk(const Chunk& chunk, const at::Tensor& hidden);
  void score_prompt(Task& task, int64_t count, const at::Tensor& hidden);
  // A token that is to be chosen: a task's next, or one behind so many drafts that may be right.
  struct Next {
    Task* task;
    int64_t drafts = 0;
  };
  // Of a row of logits; without a token where the row has no numbers.
  using Choice = std::optional<TokenEvent>;
  // Choices that the device has been given to make.
  struct Asked;
  Asked ask(std::vector<Next> next, const at::Tensor& logits);
  static std::vector<Choice> read(const Asked& asked);
  void ask_for_next(const Tasks& tasks, const at::Tensor& logits);
  void take_all();
  void show_logits(const std::vector<Next>& next, const at::Tensor& logits);
  at::Tensor masked_by_requests(const std::vector<Next>& next, const at::Tensor& logits);
  void take(Task& task, Choice choice, const at::Tensor& logits);
  void deliver(Task& task, TokenEvent event);
  void tell(Task& task);
  void failed(const Pieces& pieces, const std::string& what);
  // Runs `call`, a request's own function; what it throws ends the request.
  template <class Call>
  void call_out(Task& task, Call call);

  const SchedulerOptions options_;
  Engine engine_;
  const at::Device device_;
  const int64_t spacing_;  // of snapshots; 0: none, where sequences can be cut anywhere
  const int64_t context_;
  // The driving thread's.
  PrefixCache prefixes_;
  std::map<Order, std::unique_ptr<Task>> queue_, running_;
  std::unordered_map<RequestId, Task*> tasks_;  // of both
  SchedulerStats counters_;
  std::vector<Asked> asked_;      // in this step, and not taken yet
  std::unique_ptr<Chunk> chunk_;  // of prompts, of which some layers are still to be run
  Pace pace_;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable_any news_;
  std::vector<std::unique_ptr<Task>> incoming_;
  std::vector<RequestId> cancelled_;
  std::vector<std::function<void()>> works_;
  RequestId next_id_ = 1;
  SchedulerStats stats_;
};

}  // namespace halo
