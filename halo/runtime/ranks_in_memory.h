// Ranks that share memory: threads of one process, or processes of one machine. They meet at a
// board; what one tells the others is copied through it, piece by piece.
#pragma once

#include <memory>
#include <string>

#include "halo/runtime/communicator.h"

namespace halo {

// The memory, mapped by each of them. The ranks of a process share one object.
class Board {
 public:
  static constexpr int64_t kMaxRanks = 64;

  // For threads of this process.
  explicit Board(int64_t ranks);
  // For processes: the first makes `name` ("/halo-4711"), the others open it. An Error where that
  // cannot be.
  enum class Role { kMakes, kOpens };
  Board(int64_t ranks, const std::string& name, Role role);
  ~Board();
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;
  // Takes the name away, once all have opened it: what a kill leaves behind is nothing.
  static void unlink(const std::string& name);

  struct Header;
  Header& header() const { return *header_; }
  std::byte* slot(int64_t rank) const;
  int64_t ranks() const { return ranks_; }
  bool is_of_processes() const { return is_of_processes_; }

 private:
  void map(int fd);

  int64_t ranks_;
  bool is_of_processes_;
  Header* header_ = nullptr;
};

// `time_limit`, seconds: how long a rank waits for the others in a step; and everywhere else, where
// they are processes, how long one may give no sign of life.
std::unique_ptr<Communicator> rank_in_memory(std::shared_ptr<Board> board, int64_t rank,
                                             double time_limit);

}  // namespace halo
