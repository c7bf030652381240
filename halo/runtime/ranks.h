// Starts the ranks of a command, as its recipe and environment ask for.
#pragma once

#include <functional>

#include "halo/runtime/communicator.h"
#include "halo/runtime/run_recipe.h"

namespace halo {

// How many ranks a command with this recipe has: those that `halo launch`, torchrun or Slurm
// started, or run.ranks. An Error where the two contradict each other.
int64_t num_ranks(const RunRecipe& run);

// Runs `work` on every rank: on threads of this process (run.ranks on a CPU), or here, as the rank
// that this process is. Of those but the first nothing is said on stderr. Returns when all have
// ended; throws what the rank threw that failed first.
void run_ranks(const RunRecipe& run, const std::function<void(Communicator&)>& work);

// The settings for one of the ranks of a machine: they share its cores.
RunRecipe run_of_rank(RunRecipe recipe, const Communicator& ranks);

// Calls `work` for ranks 0 .. n-1 on threads of their own, rank 0 on this one; for run_ranks and
// tests.
void run_threads(int64_t n, double time_limit, const std::function<void(Communicator&)>& work);

}  // namespace halo
