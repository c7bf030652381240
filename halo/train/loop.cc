// The training loop.
#include "halo/train/loop.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/json_lines.h"
#include "halo/base/progress.h"
#include "halo/base/stop.h"
#include "halo/model/layer_sharing.h"
#include "halo/runtime/device_event.h"
#include "halo/train/background_saves.h"
#include "halo/train/checkpoint.h"
#include "halo/train/data_wait.h"
#include "halo/train/health.h"
#include "halo/train/optimizer.h"
#include "halo/train/resume.h"

namespace halo {
namespace {

constexpr int64_t kMaxSkippedInARow = 10;
constexpr int64_t kMaxFailedSavesInARow = 3;

// A device tensor on its way to the host; nothing waits for it before values().
class HostCopy {
 public:
  explicit HostCopy(const at::Tensor& tensor)
      : host_(tensor.to(at::kCPU, /*non_blocking=*/true)), arrival_(tensor.device()) {}
  // The elements of a 1-D fp64 tensor.
  std::vector<double> values() const {
    arrival_.wait();
    const double* data = host_.const_data_ptr<double>();
    return {data, data + host_.numel()};
  }
  const DeviceEvent& arrival() const { return arrival_; }

 private:
  at::Tensor host_;
  DeviceEvent arrival_;
};

class Trainer {
 public:
  explicit Trainer(const TrainJob& job);
  TrainResult run();

 private:
  // What a step's batches gave, and how long they were waited for.
  struct Accumulated {
    at::Tensor loss;    // [loss, extras...] in fp64 on the device
    double waited;      // seconds, of the rank that waited longest
    DeviceEvent begin;  // all batches of all ranks are there
  };
  // A step whose metrics are not read yet.
  struct Pending {
    int64_t step;
    double rate;
    double waited;
    DeviceEvent begin;
    HostCopy record;  // loss, norm, applied, extras
  };

  void start();
  void check_same_job();
  bool agree(bool first_ranks_answer);
  bool is_told_to_stop();
  void restore_history(const JsonLines& metrics);
  int64_t first_row() const;  // of a step, that this rank or its group trains
  TrainBatch next_batch(int64_t index) const;
  std::optional<Accumulated> accumulate(int64_t step);
  void read_pending();
  void read(Pending step);
  void log_metrics(const Pending& step, const std::vector<double>& record);
  void watch(int64_t step);
  void save_between(int64_t step);
  void save_last(int64_t step);
  void save_now(int64_t step);
  void saved(int64_t step, double seconds, double waited);
  void note(const std::optional<BackgroundSaves::Ended>& save);
  [[noreturn]] void stop(int64_t step);
  void event(const char* what, int64_t step, json::object more = {});
  void warn(const std::string& text, int64_t step);

  const TrainJob& job_;
  ParameterStore& store_;
  const TrainRecipe& recipe_;
  Communicator& ranks_;
  const Schedule schedule_;
  const int64_t steps_, rows_, micro_batches_;  // rows: of this rank, or its group, in a step
  Checkpoints checkpoints_;
  Optimizer optimizer_;
  Health health_;
  DataWait data_wait_;
  std::optional<JsonLines> metrics_, events_;
  std::optional<Prefetcher> batches_;
  std::optional<Progress> progress_;
  std::optional<Pending> pending_;
  std::optional<BackgroundSaves> saves_;
  int64_t failed_saves_ = 0;  // in a row
  int64_t done_ = 0;          // updates in the weights
  int64_t last_saved_ = -1;   // the newest checkpoint's step
  double seconds_ = 0;
  std::optional<DeviceEvent> last_arrival_;  // of the step before, or when the first one began
};

Trainer::Trainer(const TrainJob& job)
    : job_(job),
      store_(*job.store),
      recipe_(job.recipe),
      ranks_(job.store->ranks()),
      schedule_((check_recipe(job.recipe, job.stage, ranks_.size()), make_schedule(job.recipe))),
      steps_(job.recipe.steps()),
      rows_(job.recipe.rows_per_rank(ranks_.size())),
      micro_batches_((rows_ + job.recipe.micro_batch_rows - 1) / job.recipe.micro_batch_rows),
      checkpoints_(job.directory, job.recipe.keep_checkpoints, ranks_),
      optimizer_(*job.store, job.recipe),
      health_(job.recipe.diverged_factor) {
  HALO_CHECK(store_.use() == ParameterStore::Use::kTrained, "{}: the store is frozen", job.stage);
}

void Trainer::event(const char* what, int64_t step, json::object more) {
  if (!ranks_.is_first()) return;
  json::object line{{"event", what}, {"step", step}};
  for (auto& [key, value] : more) line[key] = value;
  events_->append(line);
}

void Trainer::warn(const std::string& text, int64_t step) {
  if (!ranks_.is_first()) return;
  spdlog::warn("{}: {}", job_.stage, text);
  event("warning", step, {{"text", text}});
}

// Ranks with other shards or another recipe would train other rows of the same step, and nobody
// would notice. However long each of them took to load what it trains with.
void Trainer::check_same_job() {
  ranks_.wait();
  const TrainState job = describe(job_, 0);
  const std::string mine = fmt::format("{} {} {} {} {}", job.data_id, job.seed, job.context_ranks,
                                       job_.async_checkpoints, json::serialize(job.recipe));
  if (ranks_.broadcast(mine) != mine) {
    throw_error(
        "{}: has other data or another recipe than the first rank; give all of them the same "
        "shards and settings",
        job_.stage);
  }
}

// Loads the newest checkpoint or writes the first one.
void Trainer::start() {
  if (ranks_.size() > 1) check_same_job();
  if (ranks_.is_first()) checkpoints_.clean();
  std::vector<std::string> warnings;
  const std::optional<TrainState> state =
      checkpoints_.load_newest(store_, [&](const std::string& text) { warnings.push_back(text); });
  done_ = state ? state->step : 0;
  last_saved_ = state ? done_ : -1;
  if (ranks_.is_first()) {
    metrics_.emplace(job_.directory / "metrics.jsonl", last_saved_);
    events_.emplace(job_.directory / "events.jsonl", last_saved_);
  }
  for (const std::string& text : warnings) warn(text, done_);
  if (state) {
    const std::string from = checkpoints_.path(done_).string();
    for (const std::string& text : check_resume(*state, describe(job_, done_), from)) {
      warn(text, done_);
    }
    if (done_ > steps_) {
      throw_error("{}: is past the recipe's {} steps; raise tokens or use a new run folder", from,
                  steps_);
    }
    if (metrics_) restore_history(*metrics_);
    event("resume", done_);
    return;
  }
  // Proves before the first step that a save works and reads back.
  if (ranks_.is_first()) require_space(job_.directory, 2 * checkpoint_bytes(store_, job_.model));
  store_.moment1().zero_();
  store_.moment2().zero_();
  const at::Tensor before = store_.master().clone();
  save_now(0);
  checkpoints_.load(0, store_);
  HALO_CHECK(at::equal(before, store_.master()), "{}: the first checkpoint reads back differently",
             checkpoints_.path(0).string());
}

void Trainer::restore_history(const JsonLines& metrics) {
  for (const json::object& line : metrics.kept()) {
    const auto number = [&](const char* key) {
      const json::value* value = line.if_contains(key);
      return value && value->is_number() ? value->to_number<double>() : 0.0;
    };
    const json::value* skipped = line.if_contains("skipped");
    health_.add(number("loss"), number("grad_norm"), skipped && *skipped == true);
    seconds_ = number("seconds");
  }
}

int64_t Trainer::first_row() const {
  return ranks_.rank() / recipe_.ranks_of_a_row(ranks_.size()) * rows_;
}

TrainBatch Trainer::next_batch(int64_t index) const {
  const int64_t first = index % micro_batches_ * recipe_.micro_batch_rows;
  return job_.data(index / micro_batches_, first_row() + first,
                   std::min(recipe_.micro_batch_rows, rows_ - first));
}

// What the first rank says.
bool Trainer::agree(bool first_ranks_answer) {
  return ranks_.broadcast(first_ranks_answer ? "1" : "0") == "1";
}

// Whether any rank is.
bool Trainer::is_told_to_stop() {
  const double mine = stop_requested() ? 1 : 0;
  return (ranks_.size() > 1 ? ranks_.sum({mine})[0] : mine) > 0;
}

// The step's gradient into the store. Nothing where the run was told to stop: the weights are still
// those of the step before.
std::optional<Trainer::Accumulated> Trainer::accumulate(int64_t step) {
  std::vector<TrainBatch> batches;
  const auto asked = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < micro_batches_; ++i) batches.push_back(batches_->next());
  double waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - asked).count();
  if (job_.complete) {
    // It may take minutes, each rank's its own.
    if (is_told_to_stop()) return std::nullopt;
    if (store_.layers()) store_.layers()->settle();
    job_.complete(step - 1, first_row(), batches);
    ranks_.wait();
  }
  double is_part_done = saves_ && saves_->is_part_done() ? 1 : 0;
  int64_t count = 0;
  for (const TrainBatch& batch : batches) count += job_.count(batch);
  if (ranks_.size() > 1) {
    // A signal to one rank is one to all, between two steps.
    std::vector<double> mine(3 + ranks_.size());
    mine[0] = static_cast<double>(count);
    mine[1] = stop_requested() ? 1.0 : 0.0;
    mine[2] = is_part_done;
    mine[3 + ranks_.rank()] = waited;
    const std::vector<double> sums = ranks_.sum(mine);
    // Each counts the whole rows.
    count = static_cast<int64_t>(sums[0]) / recipe_.ranks_of_a_row(ranks_.size());
    if (sums[1] > 0) return std::nullopt;
    is_part_done = sums[2] == static_cast<double>(ranks_.size());
    waited = *std::max_element(sums.begin() + 3, sums.end());
  }
  if (is_part_done) note(saves_->go_on());
  if (count <= 0) throw_error("{}: step {} has no token that counts", job_.stage, step);
  const DeviceEvent begin(store_.device());
  store_.zero_grad();
  if (store_.layers()) store_.layers()->begin_step(micro_batches_);
  at::Tensor sum;
  for (const TrainBatch& batch : batches) {
    if (ranks_.size() == 1 && stop_requested()) return std::nullopt;
    const at::Tensor part = job_.forward_backward(batch, count).reshape({-1}).to(at::kDouble);
    HALO_CHECK(part.numel() == 1 + static_cast<int64_t>(job_.extra_metrics.size()),
               "{}: forward_backward gave {} values for {} extra metrics", job_.stage, part.numel(),
               job_.extra_metrics.size());
    sum = sum.defined() ? sum + part : part;
  }
  return Accumulated{ranks_.sum(sum), waited, begin};
}

// Records what the newest step that was started gave; waits for it.
void Trainer::read_pending() {
  if (pending_) read(*std::exchange(pending_, std::nullopt));
}

void Trainer::read(Pending step) {
  if (!ranks_.is_first()) return;
  const std::vector<double> record = step.record.values();
  log_metrics(step, record);
  const bool skipped = record[2] == 0;
  health_.add(record[0], record[1], skipped);
  if (skipped) {
    event("skipped", step.step,
          {{"first_row", (step.step - 1) * recipe_.rows_per_step()},
           {"rows", recipe_.rows_per_step()},
           {"loss", finite_or_null(record[0])},
           {"grad_norm", finite_or_null(record[1])}});
  }
  watch(step.step);
}

void Trainer::log_metrics(const Pending& step, const std::vector<double>& record) {
  const double elapsed = step.record.arrival().seconds_since(*last_arrival_);
  // A device has the step before to do while the host waits: what is lost is where it had nothing.
  const double idle = step.begin.seconds_since(*last_arrival_);
  const double waited = std::clamp(std::min(step.waited, idle), 0.0, std::max(elapsed, 0.0));
  data_wait_.add(waited, elapsed);
  last_arrival_ = step.record.arrival();
  seconds_ += elapsed;
  const double rate = recipe_.tokens_per_step / std::max(elapsed, 1e-9);
  json::object line{{"step", step.step},
                    {"tokens", step.step * recipe_.tokens_per_step},
                    {"loss", finite_or_null(record[0])},
                    {"grad_norm", finite_or_null(record[1])},
                    {"lr", step.rate},
                    {"skipped", record[2] == 0}};
  for (size_t i = 0; i < job_.extra_metrics.size(); ++i) {
    line[job_.extra_metrics[i]] = finite_or_null(record[3 + i]);
  }
  line["tokens_per_second"] = rate;
  line["data_wait"] = waited / std::max(elapsed, 1e-9);
  line["seconds"] = seconds_;
  metrics_->append(line);
  std::string text =
      fmt::format("loss {:.4f}  norm {:.3g}  {:.0f} tok/s", record[0], record[1], rate);
  const double percent = 100 * data_wait_.share();
  if (percent >= 1) text += fmt::format("  {:.0f}% data wait", percent);
  progress_->update(step.step, text);
  if (!data_wait_.is_worth_a_warning()) return;
  warn(fmt::format(
           "the {} steps up to {} waited for data {:.0f}% of their time; put the shards on a "
           "faster disk, or leave a processor free for their reader",
           DataWait::kSteps, step.step, percent),
       step.step);
}

// The two reasons to give up. Nothing is saved: the update before the first bad one may be what
// ruined the weights, and a resume would begin with them.
void Trainer::watch(int64_t step) {
  const bool is_stuck = health_.skipped_in_a_row() >= kMaxSkippedInARow;
  const std::optional<std::string> reason = health_.diverged();
  if (!is_stuck && !reason) return;
  // The newest is named, if no other rank is needed for it.
  if (saves_ && ranks_.size() == 1) {
    try {
      note(saves_->finish());
    } catch (const Error&) {  // that it could not be saved is said, and not why the run ends
    }
  }
  const std::string newest = checkpoints_.path(last_saved_).string();
  if (is_stuck) {
    events_->sync();
    throw_error(
        "{}: {} updates in a row up to step {} had a loss or gradient that is not finite (batches "
        "in {}); start from {} with a lower learning_rate than {:g}",
        job_.stage, kMaxSkippedInARow, step, (job_.directory / "events.jsonl").string(), newest,
        recipe_.learning_rate);
  }
  event("diverged", step, {{"text", *reason}});
  throw_error("{}: diverged at step {}: {}; start from {} with a lower learning_rate than {:g}",
              job_.stage, step, *reason, newest, recipe_.learning_rate);
}

// Writes what there is now, while the training waits.
void Trainer::save_now(int64_t step) {
  if (metrics_) metrics_->sync();
  const auto begin = std::chrono::steady_clock::now();
  checkpoints_.save(describe(job_, step), store_, job_.model);
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  saved(step, time.count(), time.count());
  last_arrival_.emplace(store_.device());
}

void Trainer::saved(int64_t step, double seconds, double waited) {
  failed_saves_ = 0;
  last_saved_ = step;
  event("save", step, {{"seconds", seconds}, {"waited", waited}});
  if (events_) events_->sync();
}

// How a save behind the training ended, if one did.
void Trainer::note(const std::optional<BackgroundSaves::Ended>& save) {
  if (!save) return;
  if (save->error.empty()) return saved(save->step, save->seconds, save->waited);
  ++failed_saves_;
  const std::string text =
      fmt::format("no checkpoint at step {} ({} in a row have failed, {} end the run): {}",
                  save->step, failed_saves_, kMaxFailedSavesInARow, save->error);
  if (ranks_.is_first()) spdlog::error("{}: {}", job_.stage, text);
  event("save_failed", save->step, {{"text", save->error}});
  if (failed_saves_ < kMaxFailedSavesInARow) return;
  if (events_) events_->sync();
  if (ranks_.rank() != save->failed_rank) ranks_.wait();  // ends with the error of that rank
  throw_error(
      "{}: {} checkpoints in a row could not be saved, the last one, of step {}: {}; the "
      "newest is {}",
      job_.stage, failed_saves_, save->step, save->error, checkpoints_.path(last_saved_).string());
}

// Between two steps that go on.
void Trainer::save_between(int64_t step) {
  read_pending();
  if (saves_) note(saves_->finish());
  if (agree(health_.suspicious())) {
    const char* why = health_.skipped_in_a_row() > 0
                          ? "the last update was not finite"
                          : "gradient norms or losses are far above what they were";
    warn(fmt::format("{}: no checkpoint at step {}", why, step), step);
    return;
  }
  if (!saves_) return save_now(step);
  if (metrics_) metrics_->sync();
  saves_->begin(describe(job_, step));
  last_arrival_.emplace(store_.device());
}

// Where no step follows.
void Trainer::save_last(int64_t step) {
  read_pending();
  if (saves_) note(saves_->finish());
  if (step != last_saved_) save_now(step);
}

void Trainer::stop(int64_t step) {
  save_last(step);
  event("stop", step);
  progress_->finish("stopped");
  throw Stopped(fmt::format("{}: stopped at step {} of {}, saved in {}; run it again to go on",
                            job_.stage, step, steps_, checkpoints_.path(step).string()));
}

TrainResult Trainer::run() {
  progress_.emplace(job_.title, steps_);
  start();
  if (done_ < steps_) {
    batches_.emplace([this](int64_t index) { return next_batch(index); }, done_ * micro_batches_);
    if (job_.async_checkpoints && recipe_.checkpoint_every > 0) {
      saves_.emplace(checkpoints_, store_, job_.model);
    }
  }
  last_arrival_.emplace(store_.device());
  const StopLater later(
      ranks_.is_first() ? fmt::format("{} ends its micro-batch and saves", job_.stage) : "");
  while (done_ < steps_) {
    const int64_t step = done_ + 1;
    const std::optional<Accumulated> sum = accumulate(step);
    if (!sum) stop(done_);
    const at::Tensor& loss = sum->loss;
    crash_point("train.mid_step");
    if (saves_) saves_->before_update();
    const Optimizer::Update update = optimizer_.step(step, schedule_.rate(step), loss[0]);
    at::Tensor record =
        at::cat({loss.narrow(0, 0, 1), update.norm.reshape({1}),
                 update.applied.to(at::kDouble).reshape({1}), loss.narrow(0, 1, loss.numel() - 1)});
    done_ = step;
    std::optional<Pending> before = std::exchange(
        pending_, Pending{step, schedule_.rate(step), sum->waited, sum->begin, HostCopy(record)});
    if (before) read(std::move(*before));
    if (step == steps_) {
      save_last(step);
    } else if (recipe_.checkpoint_every > 0 && step % recipe_.checkpoint_every == 0) {
      save_between(step);
    }
  }
  if (store_.layers()) store_.layers()->settle();
  progress_->finish(fmt::format("loss {:.4f}", health_.last_loss()));
  return {steps_,   health_.skipped(),        health_.first_loss(), health_.last_loss(),
          seconds_, checkpoints_.path(steps_)};
}

}  // namespace

TrainResult train(const TrainJob& job) {
  HALO_CHECK(
      job.store && job.data && job.count && job.forward_backward && job.model.write_side_files,
      "train: an incomplete job");
  return Trainer(job).run();
}

}  // namespace halo
