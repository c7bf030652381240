// What ranks that are processes say to each other through a server (rank_store.h), and how they
// notice that one of them has ended, died or been stopped.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "halo/base/stop.h"
#include "halo/runtime/other_ranks.h"
#include "halo/runtime/rank_place.h"
#include "halo/runtime/rank_store.h"

namespace halo {

class RankWords {
 public:
  // Returns when all ranks have come, for which each has 2.5 times the limit, 30 seconds at least.
  // From then on one that gives no sign of life for `time_limit` seconds is lost.
  RankWords(RankStore store, const RankPlace& place, double time_limit);
  ~RankWords();
  RankWords(const RankWords&) = delete;

  // What each rank gave, in order of rank. `limit`: how long the others may take, in seconds; none:
  // as long as they live.
  std::vector<std::string> exchange(const std::string& mine, std::optional<double> limit);

  // Tells the others that this rank ends with this exit code. On any thread.
  void end(int exit_code);
  // Makes check(), and so exchange(), throw RankLost. On any thread.
  void give_up(const std::string& why);
  // Throws where a rank has ended or died, or this one has given up.
  void check();
  // Why the others cannot go on, as far as it was seen in the last half second; empty: they can. On
  // any thread.
  std::string trouble();

 private:
  void find_neighbours();
  std::string dead_neighbour() const;
  void look_for(const std::vector<std::string>& keys, std::optional<double> limit, double waited,
                SignsOfLife& signs);
  void show_signs(const std::stop_token& stop);
  std::string look_around(uint64_t number);
  template <class F>
  auto from_store(F call) -> decltype(call());

  const RankPlace place_;
  const double time_limit_;
  RankStore store_, signs_store_;
  std::vector<int> neighbours_;  // process ids; 0: of another machine, or this one's own
  int64_t exchanges_ = 0;

  std::mutex mutex_;
  std::condition_variable_any change_;
  std::string given_up_, trouble_;

  std::jthread signs_;
  std::optional<AtStop> at_stop_;
};

}  // namespace halo
