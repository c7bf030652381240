#include "halo/bench/save_times.h"

#include <algorithm>
#include <chrono>

#include "ATen/ATen.h"
#include "halo/base/check.h"

namespace halo {
namespace {

// Seconds until the device has done what it is given.
template <class Work>
double seconds_of(at::Device device, Work work) {
  DeviceEvent(device).wait();
  const auto begin = std::chrono::steady_clock::now();
  work();
  DeviceEvent(device).wait();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TrainState state_of(int64_t step) {
  TrainState state;
  state.stage = "bench";
  state.step = step;
  return state;
}

}  // namespace

json::object time_saves(const std::filesystem::path& folder, ParameterStore& store,
                        const std::function<void(BackgroundSaves*)>& step) {
  Communicator& ranks = store.ranks();
  const Checkpoints checkpoints(folder, 2, ranks);
  if (!checkpoints.steps().empty()) {
    throw_error("bench train: --save-to {}: holds checkpoints; name another folder",
                folder.string());
  }
  ranks.wait();
  SavedModel model;
  if (store.compute_type() == at::kBFloat16) model.dtype = DType::kBF16;
  model.write_side_files = [](const std::filesystem::path&) {};
  const auto timed = [&](auto work) { return seconds_of(store.device(), work); };
  const auto forget = [&](int64_t saved) {
    if (ranks.is_first()) std::filesystem::remove_all(checkpoints.path(saved));
    ranks.wait();
  };

  std::vector<double> without;
  for (int i = 0; i < 3; ++i) without.push_back(timed([&] { step(nullptr); }));
  std::ranges::sort(without);
  const double waiting = timed([&] {
    checkpoints.save(state_of(1), store, model);
    step(nullptr);
  });
  forget(1);
  BackgroundSaves saves(checkpoints, store, model);
  const double behind = timed([&] {
    saves.begin(state_of(2));
    step(&saves);
  });
  json::array beside;
  std::optional<BackgroundSaves::Ended> ended;
  while (!ended) {
    beside.push_back(timed([&] { step(nullptr); }));
    const double done = ranks.sum(std::vector{saves.is_part_done() ? 1.0 : 0.0})[0];
    if (done == static_cast<double>(ranks.size())) ended = saves.go_on();
  }
  if (!ended->error.empty()) throw_error("bench train: {}", ended->error);
  forget(2);
  return {{"checkpoint_bytes", checkpoint_bytes(store, model)},
          {"step_seconds", without[1]},
          {"waiting_step_seconds", waiting},
          {"behind_step_seconds", behind},
          {"beside_step_seconds", beside},
          {"write_seconds", ended->seconds}};
}

}  // namespace halo
