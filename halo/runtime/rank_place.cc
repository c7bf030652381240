#include "halo/runtime/rank_place.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "halo/base/check.h"

namespace halo {
namespace {

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? std::optional<std::string>(value) : std::nullopt;
}

std::optional<int64_t> count(const char* name, int64_t most) {
  const std::optional<std::string> text = variable(name);
  if (!text) return std::nullopt;
  int64_t value = -1;
  const char* end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, value);
  if (error != std::errc() || stop != end || value < 0 || value > most) {
    throw_error("the environment's {} = '{}' is no number from 0 to {}", name, *text, most);
  }
  return value;
}

constexpr int64_t kMost = 1'000'000;

int64_t required(const char* name, const char* beside, int64_t most = kMost) {
  const std::optional<int64_t> value = count(name, most);
  if (!value) throw_error("the environment has {} and no {}", beside, name);
  return *value;
}

void check_place(const RankPlace& place) {
  if (place.rank >= place.size || place.local_rank >= place.local_size) {
    throw_error("the environment says rank {} of {}, on this machine {} of {}", place.rank,
                place.size, place.local_rank, place.local_size);
  }
}

RankPlace torchrun_place() {
  RankPlace place;
  place.size = required("WORLD_SIZE", "RANK");
  place.rank = required("RANK", "WORLD_SIZE");
  place.local_rank = count("LOCAL_RANK", kMost).value_or(place.rank);
  place.local_size = count("LOCAL_WORLD_SIZE", kMost).value_or(place.local_rank + 1);
  place.address = variable("MASTER_ADDR").value_or("127.0.0.1");
  if (place.size > 1) place.port = required("MASTER_PORT", "WORLD_SIZE", 65'535);
  place.is_served = variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  place.restarts = count("TORCHELASTIC_RESTART_COUNT", kMost).value_or(0);
  return place;
}

// Of a job step, which is what `srun` makes; a batch script alone is no rank.
RankPlace slurm_place() {
  RankPlace place;
  place.size = required("SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID");
  place.rank = required("SLURM_PROCID", "SLURM_STEP_ID");
  place.local_rank = required("SLURM_LOCALID", "SLURM_STEP_ID");
  // "2(x3),1": tasks of each node
  const std::string tasks = variable("SLURM_STEP_TASKS_PER_NODE").value_or("1");
  std::from_chars(tasks.data(), tasks.data() + tasks.size(), place.local_size);
  place.local_size = std::max(place.local_size, place.local_rank + 1);
  place.address = variable("MASTER_ADDR")
                      .value_or(first_host(variable("SLURM_STEP_NODELIST").value_or("127.0.0.1")));
  // Two jobs on one machine are to have two ports.
  place.port = count("MASTER_PORT", 65'535)
                   .value_or(20'000 + count("SLURM_JOB_ID", INT64_MAX).value_or(0) % 10'000);
  place.restarts = count("SLURM_RESTART_COUNT", kMost).value_or(0);
  return place;
}

}  // namespace

std::optional<RankPlace> rank_place() {
  std::optional<RankPlace> place;
  if (variable("RANK") || variable("WORLD_SIZE")) {
    place = torchrun_place();
  } else if (variable("SLURM_STEP_ID") && variable("SLURM_STEP_NUM_TASKS")) {
    place = slurm_place();
  }
  if (place) check_place(*place);
  return place;
}

bool is_restart() {
  return count("TORCHELASTIC_RESTART_COUNT", kMost).value_or(0) > 0 ||
         count("SLURM_RESTART_COUNT", kMost).value_or(0) > 0;
}

std::string first_host(const std::string& nodes) {
  const size_t open = nodes.find_first_of("[,");
  if (open == std::string::npos || nodes[open] == ',') return nodes.substr(0, open);
  const size_t stop = nodes.find_first_of("-,]", open);
  return nodes.substr(0, open) + nodes.substr(open + 1, stop - open - 1);
}

}  // namespace halo
