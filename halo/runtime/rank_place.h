// Which rank this process is, as the launcher that started it says in the environment.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace halo {

struct RankPlace {
  int64_t rank = 0, size = 1;
  int64_t local_rank = 0, local_size = 1;  // on this machine
  std::string address;                     // of the first rank's machine
  int64_t port = 0;
  bool is_served = false;  // the launcher keeps the store there (RankStore), not the first rank
  int64_t restarts = 0;    // of the group so far
};

// By RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, which torchrun
// and `halo launch` set, or else by what `srun` does. Nothing: this process is alone. An Error
// where what is there is no rank.
std::optional<RankPlace> rank_place();

// Whether the launcher has started this command before, so that it is to go on.
bool is_restart();

// The first host of Slurm's list: "gpu[03-05,9],cpu1" -> "gpu03".
std::string first_host(const std::string& nodes);

}  // namespace halo
