#include "halo/train/background_saves.h"

#include <exception>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/silence.h"

namespace halo {
namespace {

// Adds the time of its life to `sum`.
class Waiting {
 public:
  explicit Waiting(double& sum) : sum_(sum) {}
  ~Waiting() {
    sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  Waiting(const Waiting&) = delete;

 private:
  double& sum_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// Why it failed; empty: it did not.
std::string error_of(std::future<void>& work) {
  try {
    work.get();
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

BackgroundSaves::BackgroundSaves(const Checkpoints& checkpoints, ParameterStore& store,
                                 const SavedModel& model)
    : checkpoints_(checkpoints), store_(store), model_(model), copy_(store) {}

void BackgroundSaves::begin(TrainState state) {
  HALO_CHECK(!save_, "a checkpoint is begun while one is in flight");
  begun_ = Clock::now();
  waited_ = 0;
  const Waiting waiting(waited_);
  copied_ = copy_.take();
  part_ = 0;
  save_.emplace(checkpoints_, std::move(state), store_, model_, copy_.values());
}

void BackgroundSaves::before_update() {
  if (!copied_) return;
  const Waiting waiting(waited_);
  copied_->wait();
  copied_.reset();
  start_part();
}

void BackgroundSaves::start_part() {
  writing_ = std::async(std::launch::async, [this, part = part_] {
    const Silence silence;  // the progress that is shown is the training's
    save_->do_part(part);
  });
}

bool BackgroundSaves::is_part_done() const {
  return writing_.valid() &&
         writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

std::optional<BackgroundSaves::Ended> BackgroundSaves::go_on() {
  Ended ended{.step = save_->step()};
  const std::vector<std::string> errors = store_.ranks().exchange(error_of(writing_));
  for (int64_t rank = std::ssize(errors) - 1; rank >= 0; --rank) {
    if (errors[rank].empty()) continue;
    ended.error = errors[rank];
    ended.failed_rank = rank;
  }
  if (ended.error.empty() && ++part_ < save_->num_parts()) {
    start_part();
    return std::nullopt;
  }
  save_.reset();
  ended.seconds = std::chrono::duration<double>(Clock::now() - begun_).count();
  ended.waited = waited_;
  return ended;
}

std::optional<BackgroundSaves::Ended> BackgroundSaves::finish() {
  std::optional<Ended> ended;
  while (save_) {
    before_update();
    {
      const Waiting waiting(waited_);
      writing_.wait();
      store_.ranks().wait();
    }
    ended = go_on();
  }
  return ended;
}

}  // namespace halo
