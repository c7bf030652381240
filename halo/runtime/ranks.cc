#include "halo/runtime/ranks.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <sstream>
#include <thread>
#include <vector>

#include "ATen/Parallel.h"
#include "halo/base/silence.h"
#include "halo/base/stop.h"
#include "halo/runtime/machine.h"
#include "halo/runtime/nccl_ranks.h"
#include "halo/runtime/other_ranks.h"
#include "halo/runtime/rank_place.h"
#include "halo/runtime/rank_store.h"
#include "halo/runtime/rank_words.h"
#include "halo/runtime/ranks_in_memory.h"

namespace halo {
namespace {

// The exit code of an exception that ends a rank, for those who end with it.
int exit_code_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const RankLost&) {
    return 5;
  } catch (const GroupEnded& ended) {
    return ended.code();
  } catch (const GateFailed&) {
    return 4;
  } catch (const Stopped&) {
    return kStoppedCode;
  } catch (...) {
    return 1;
  }
}

bool is_from_another(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const GroupEnded&) {
    return true;
  } catch (...) {
    return false;
  }
}

std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const c10::Error& e) {
    return e.what_without_backtrace();
  } catch (const std::exception& e) {
    return e.what();
  }
}

RankStore open_store(const RankPlace& place) {
  return {place.address, place.port, place.rank == 0 && !place.is_served,
          fmt::format("halo/{}/", place.restarts)};
}

// The name of shared memory, until all have opened it: what a kill leaves behind then is nothing.
class MemoryName {
 public:
  explicit MemoryName(std::string name) : name_(std::move(name)) {}
  ~MemoryName() { Board::unlink(name_); }
  MemoryName(const MemoryName&) = delete;

 private:
  const std::string name_;
  const AtStop at_stop_{[this] { Board::unlink(name_); }};
};

// Processes of one machine: the first makes the memory and says where it is.
std::unique_ptr<Communicator> rank_beside_others(const RankPlace& place, RankWords& words,
                                                 double time_limit) {
  std::optional<MemoryName> made;
  std::shared_ptr<Board> board;
  std::string name = fmt::format("/halo-{}-{}", getpid(), place.restarts);
  if (place.rank == 0) {
    made.emplace(name);
    board = std::make_shared<Board>(place.size, name, Board::Role::kMakes);
  }
  name = words.exchange(name, std::nullopt)[0];
  if (place.rank > 0) board = std::make_shared<Board>(place.size, name, Board::Role::kOpens);
  std::unique_ptr<Communicator> ranks = rank_in_memory(board, place.rank, time_limit);
  ranks->wait();
  return ranks;
}

// LibTorch's first device is the rank's own. NCCL needs no other to be seen.
void choose_gpu(const RankPlace& place) {
  const char* given = std::getenv("CUDA_VISIBLE_DEVICES");
  std::vector<std::string> visible;
  std::istringstream list(given ? given : "");
  for (std::string name; std::getline(list, name, ',');) visible.push_back(name);
  if (given && visible.size() == 1) return;  // the launcher chose
  if (given && std::ssize(visible) <= place.local_rank) {
    throw_error("rank {} of this machine has no GPU: CUDA_VISIBLE_DEVICES = '{}'", place.local_rank,
                given);
  }
  const std::string own = given ? visible[place.local_rank] : fmt::format("{}", place.local_rank);
  setenv("CUDA_VISIBLE_DEVICES", own.c_str(), 1);
}

void check_place(const RunRecipe& run, const RankPlace& place) {
  if (run.device == at::kCPU && place.local_size != place.size) {
    throw_error(
        "ranks on the CPU must be of one machine, here are {} of {}; use run.device = 'cuda', or "
        "fewer ranks",
        place.local_size, place.size);
  }
}

// The rank that this process is. `words` lives as long as it.
std::unique_ptr<Communicator> join_group(const RunRecipe& run, const RankPlace& place,
                                         RankWords& words) {
  try {
    if (run.device == at::kCPU) return rank_beside_others(place, words, run.rank_seconds);
    choose_gpu(place);
    open_machine(run);
    return rank_on_gpu(place, words, run.rank_seconds);
  } catch (...) {
    words.end(exit_code_of(std::current_exception()));
    throw;
  }
}

// Where its GPU fails, the rank is lost: started anew, on this one or another, the run may go on.
void work_on_gpu(int64_t rank, Communicator& ranks,
                 const std::function<void(Communicator&)>& work) {
  try {
    work(ranks);
  } catch (const c10::AcceleratorError& error) {
    const std::string what = error.what_without_backtrace();
    lose_rank(fmt::format("rank {}: its GPU failed: {}", rank, what.substr(0, what.find('\n'))));
  }
}

// A process that is one rank: what it ends with, the others end with too.
void run_here(const RunRecipe& run, const RankPlace& place,
              const std::function<void(Communicator&)>& work) {
  std::optional<Silence> silence;
  if (place.rank > 0) silence.emplace();
  std::optional<RankWords> words;
  std::unique_ptr<Communicator> ranks;
  try {
    check_place(run, place);
    words.emplace(open_store(place), place, run.rank_seconds);
    ranks = join_group(run, place, *words);
    if (run.device == at::kCPU) words.reset();
    work_on_gpu(place.rank, *ranks, work);
  } catch (...) {
    const std::exception_ptr error = std::current_exception();
    const int code = exit_code_of(error);
    if (ranks && code == 5 && !ranks->log_folder().empty()) ranks->write_log(ranks->log_folder());
    if (ranks) ranks->end(code);
    // All of them were told to stop.
    if (place.rank == 0 || is_from_another(error) || code == kStoppedCode) throw;
    fmt::print(stderr, "halo: rank {}: {}\n", place.rank, message_of(error));
    throw GroupEnded("said", code);
  }
}

}  // namespace

int64_t num_ranks(const RunRecipe& run) {
  const std::optional<RankPlace> place = rank_place();
  if (!place || place->size == 1) return run.ranks;
  if (run.ranks > 1 && run.ranks != place->size) {
    throw_error("run.ranks = {}, but {} ranks were started; leave the key out, or start that many",
                run.ranks, place->size);
  }
  return place->size;
}

void run_threads(int64_t n, double time_limit, const std::function<void(Communicator&)>& work) {
  const auto board = std::make_shared<Board>(n);
  std::mutex mutex;
  std::exception_ptr first;  // that a rank failed with by itself
  const auto run = [&](int64_t rank) {
    const std::unique_ptr<Communicator> ranks = rank_in_memory(board, rank, time_limit);
    try {
      work(*ranks);
    } catch (...) {
      const std::exception_ptr error = std::current_exception();
      {
        const std::lock_guard lock(mutex);
        if (!first && !is_from_another(error)) first = error;
      }
      const int code = exit_code_of(error);
      if (code == 5 && !ranks->log_folder().empty()) ranks->write_log(ranks->log_folder());
      ranks->end(code);
    }
  };
  {
    std::vector<std::jthread> others;
    for (int64_t rank = 1; rank < n; ++rank) {
      others.emplace_back([&run, rank] {
        const Silence silence;
        run(rank);
      });
    }
    run(0);
  }
  if (first) std::rethrow_exception(first);
}

void run_ranks(const RunRecipe& run, const std::function<void(Communicator&)>& work) {
  const int64_t ranks = num_ranks(run);
  if (ranks == 1) return work(one_rank());
  if (const std::optional<RankPlace> place = rank_place(); place && place->size > 1) {
    return run_here(run, *place, work);
  }
  if (run.device != at::kCPU) {
    throw_error(
        "run.ranks = {}: on GPUs each rank is a process of its own; start them with `halo launch "
        "-n {} -- ...`, torchrun or Slurm",
        ranks, ranks);
  }
  run_threads(ranks, run.rank_seconds, work);
}

RunRecipe run_of_rank(RunRecipe recipe, const Communicator& ranks) {
  if (recipe.threads == 0 && ranks.local_size() > 1) {
    static const int cores = at::get_num_threads();
    recipe.threads = std::max<int64_t>(1, cores / ranks.local_size());
  }
  return recipe;
}

}  // namespace halo
