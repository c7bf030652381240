// Checkpoints written behind the training: what is saved is copied to the host while the next step
// computes, then a thread of its own writes it. At most one is in flight.
//
// Ranks do each part of a save together (CheckpointSave). They agree on it between two steps, on
// the thread that trains: each says whether its part is done, and when all have said so, all go on.
#pragma once

#include <chrono>
#include <filesystem>
#include <future>
#include <optional>
#include <string>

#include "halo/train/checkpoint_save.h"

namespace halo {

class BackgroundSaves {
 public:
  // All must outlive this.
  BackgroundSaves(const Checkpoints& checkpoints, ParameterStore& store, const SavedModel& model);
  // Waits for the thread; a save that has parts left is given up.
  ~BackgroundSaves() = default;
  BackgroundSaves(const BackgroundSaves&) = delete;

  // What follows is called by the thread that trains, on every rank in the same order.

  // Begins to copy what the store has now. None is in flight.
  void begin(TrainState state);
  // Before what is saved changes: the copy is there, and writing begins.
  void before_update();
  // Whether this rank has done its part of the save in flight.
  bool is_part_done() const;

  struct Ended {
    int64_t step = 0;
    std::string error;        // empty: the checkpoint is there
    int64_t failed_rank = 0;  // whose error that is
    double seconds = 0;       // since begin()
    double waited = 0;        // of them the training's thread waited
  };
  // Once all ranks have done their part. Nothing where there is another part.
  std::optional<Ended> go_on();
  // The end of the save in flight, however long that takes; nothing where there is none.
  std::optional<Ended> finish();

 private:
  using Clock = std::chrono::steady_clock;
  void start_part();

  const Checkpoints& checkpoints_;
  ParameterStore& store_;
  const SavedModel& model_;
  KeptCopy copy_;
  std::optional<CheckpointSave> save_;  // in flight
  int64_t part_ = 0;
  std::optional<DeviceEvent> copied_;  // not waited for yet
  Clock::time_point begun_;
  double waited_ = 0;
  std::future<void> writing_;  // the part; last, so that it ends before what it uses
};

}  // namespace halo
