#include <algorithm>
#include <chrono>
#include <functional>

#include "ATen/ATen.h"
#include "halo/base/median.h"
#include "halo/bench/bench.h"
#include "halo/runtime/device_event.h"
#include "halo/runtime/machine.h"
#include "halo/runtime/ranks.h"

namespace halo {
namespace {

using Clock = std::chrono::steady_clock;

// Median seconds of a call that all ranks begin together, over `repeats` after two more.
double time_of(int64_t repeats, const Machine& machine, Communicator& ranks,
               const std::function<void()>& call) {
  std::vector<double> seconds;
  for (int64_t i = 0; i < repeats + 2; ++i) {
    ranks.wait();
    const DeviceEvent begin(machine.device);
    call();
    const DeviceEvent end(machine.device);
    end.wait();
    if (i >= 2) seconds.push_back(end.seconds_since(begin));
  }
  return median(std::move(seconds));
}

}  // namespace

json::object bench_comm(const CommBenchArgs& args, Communicator& ranks) {
  const Machine machine = open_machine(run_of_rank(args.run, ranks));
  std::vector<double> exchanges;
  for (int64_t i = 0; i < args.repeats; ++i) {
    const Clock::time_point begin = Clock::now();
    ranks.exchange("a few bytes");
    exchanges.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  json::array results;
  for (int64_t megabytes = 1;; megabytes = std::min(4 * megabytes, args.megabytes)) {
    const int64_t elements = megabytes * 250'000 / ranks.size() * ranks.size();
    const at::Tensor flat =
        at::zeros({elements}, at::TensorOptions().dtype(at::kFloat).device(machine.device));
    const auto measure = [&](const char* name, const std::function<void()>& call) {
      const double seconds = time_of(args.repeats, machine, ranks, call);
      const double sent = 4.0 * double(elements) * double(ranks.size() - 1) / double(ranks.size());
      results.push_back(json::object{{"call", name},
                                     {"bytes", 4 * elements},
                                     {"seconds", seconds},
                                     {"gigabytes_per_second", 1e-9 * sent / seconds}});
    };
    measure("reduce_scatter", [&] { ranks.reduce_scatter(flat); });
    measure("all_gather", [&] { ranks.all_gather(flat); });
    measure("all_to_all", [&] { ranks.all_to_all(flat.view({ranks.size(), -1}), ranks.size()); });
    if (megabytes == args.megabytes) break;
  }
  return {{"device", machine.device_name},
          {"ranks", ranks.size()},
          {"exchange_seconds", median(std::move(exchanges))},
          {"results", std::move(results)}};
}

}  // namespace halo
