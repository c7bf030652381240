#include "halo/bench/step_profile.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "c10/core/impl/DeviceGuardImplInterface.h"
#include "halo/base/check.h"
#include "torch/csrc/autograd/profiler_kineto.h"

namespace halo {
namespace {

namespace profiler = torch::autograd::profiler;

// The first part of a kernel's name that is found here says what it does; what is not found is
// elementwise. Attention stands before matrix products: its kernels are built of them.
constexpr std::array<std::pair<std::string_view, const char*>, 20> kKinds{{
    {"halo::lightning", "lightning"},
    {"flash", "attention"},
    {"fmha", "attention"},
    {"sdpa", "attention"},
    {"attention", "attention"},
    {"cross_entropy_rows", "loss"},
    {"kl_rows", "loss"},
    {"squared_error", "loss"},
    {"softmax", "loss"},
    {"adamw", "optimiser"},
    {"sum_squares", "optimiser"},
    {"gemm", "matrix products"},
    {"nvjet", "matrix products"},
    {"cutlass", "matrix products"},
    {"splitK", "matrix products"},
    {"cublas", "matrix products"},
    {"nccl", "communication"},
    {"Memcpy", "copies"},
    {"Memset", "copies"},
    {"copy_kernel", "copies"},
}};

const char* kind_of(const std::string& name) {
  for (const auto& [part, kind] : kKinds) {
    if (name.find(part) != std::string::npos) return kind;
  }
  return "elementwise";
}

struct Span {
  uint64_t begin, end;  // ns
};

// Length of the union.
uint64_t covered(std::vector<Span> spans) {
  std::sort(spans.begin(), spans.end(),
            [](const Span& a, const Span& b) { return a.begin < b.begin; });
  uint64_t total = 0, until = 0;
  for (const Span& span : spans) {
    if (span.end <= until) continue;
    total += span.end - std::max(span.begin, until);
    until = span.end;
  }
  return total;
}

}  // namespace

json::object profile_step(const std::function<void()>& step) {
  using torch::profiler::impl::ActivityType;
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  const std::set<ActivityType> activities{ActivityType::CUDA};
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  step();
  // Or the step's last kernels would be missed.
  c10::impl::getDeviceGuardImpl(at::kCUDA)->synchronizeDevice(0);
  const auto result = profiler::disableProfiler();

  struct Sum {
    double ns = 0;
    int64_t count = 0;
  };
  std::map<std::string, Sum> names;
  std::map<std::string, double> kinds;
  for (const auto& entry : kKinds) kinds[entry.second] = 0;
  std::vector<Span> spans;
  for (const profiler::KinetoEvent& event : result->events()) {
    if (event.deviceType() != at::kCUDA || event.durationNs() == 0) continue;
    const std::string name = event.name();
    spans.push_back({event.startNs(), event.endNs()});
    kinds[kind_of(name)] += double(event.durationNs());
    Sum& sum = names[name];
    sum.ns += double(event.durationNs());
    ++sum.count;
  }
  HALO_CHECK(!spans.empty(), "bench train: CUPTI saw no kernel");
  uint64_t first = spans[0].begin, last = 0;
  for (const Span& span : spans) {
    first = std::min(first, span.begin);
    last = std::max(last, span.end);
  }
  const double wall = double(last - first);
  json::object shares;
  for (const auto& [kind, ns] : kinds) shares[kind] = ns / wall;
  shares["idle"] = 1 - double(covered(spans)) / wall;

  std::vector<std::pair<std::string, Sum>> longest(names.begin(), names.end());
  std::sort(longest.begin(), longest.end(),
            [](const auto& a, const auto& b) { return a.second.ns > b.second.ns; });
  json::array list;
  for (const auto& [name, sum] : longest) {
    if (list.size() == 24) break;
    list.push_back({{"name", name.substr(0, 120)}, {"share", sum.ns / wall}, {"count", sum.count}});
  }
  return {{"wall_seconds", wall * 1e-9},
          {"kernels", spans.size()},
          {"shares", shares},
          {"longest", list}};
}

}  // namespace halo
