// The board is a header, at whose counters the ranks meet, and a slot of memory for each rank. A
// meeting is a futex on a number that the last one to arrive raises; those who wait look up twenty
// times a second whether the others are still there. A process has a thread that gives signs of
// life, and ends it where another was told to stop.
#include "halo/runtime/ranks_in_memory.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "ATen/ATen.h"
#include "halo/base/stop.h"
#include "halo/base/stop_request.h"
#include "halo/runtime/other_ranks.h"

namespace halo {

struct Board::Header {
  std::atomic<uint32_t> meeting;  // that is being waited for
  std::atomic<int32_t> present;   // ranks at it
  std::atomic<int32_t> ended;     // 1 + the exit code of the first rank that ended; 0: none has
  std::atomic<int32_t> ended_by;  // that rank
  struct Seat {
    std::atomic<uint64_t> meetings;  // that the rank came to
    std::atomic<uint64_t> signs;     // of life
    std::atomic<int32_t> process;    // 0: not here yet
    int64_t message_bytes;
  } seats[kMaxRanks];
};

namespace {

constexpr int64_t kSlotBytes = int64_t{4} << 20;
constexpr int64_t kHeaderBytes = 1 << 16;
static_assert(sizeof(Board::Header) <= kHeaderBytes);
static_assert(kSlotBytes >= Communicator::kMaxMessage);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

// Not FUTEX_PRIVATE: the memory may be another process' too.
void sleep_at(std::atomic<uint32_t>& word, uint32_t value) {
  const timespec wait{0, 50'000'000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, value, &wait, nullptr, 0);
}

void wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT32_MAX, nullptr, nullptr,
          0);
}

class RankInMemory : public Communicator {
 public:
  RankInMemory(std::shared_ptr<Board> board, int64_t rank, double time_limit)
      : Communicator(rank, board->ranks(), board->ranks()),
        board_(std::move(board)),
        time_limit_(time_limit) {
    seat(rank).process = static_cast<int32_t>(getpid());
    if (!board_->is_of_processes()) return;
    signs_ = std::jthread([this](const std::stop_token& stop) { show_signs(stop); });
    at_stop_.emplace([this] { end(kStoppedCode); });
  }

  ~RankInMemory() override { at_stop_.reset(); }

  void end(int exit_code) override {
    int32_t none = 0;
    Board::Header& header = board_->header();
    if (header.ended.compare_exchange_strong(none, -1)) {
      header.ended_by = static_cast<int32_t>(rank());
      header.ended = exit_code + 1;
    }
    wake_all(header.meeting);
  }

 private:
  Board::Header::Seat& seat(int64_t rank) const { return board_->header().seats[rank]; }

  std::vector<std::string> do_exchange(const std::string& mine, Patience patience) override {
    std::memcpy(board_->slot(rank()), mine.data(), mine.size());
    seat(rank()).message_bytes = std::ssize(mine);
    meet(patience);
    std::vector<std::string> all;
    for (int64_t r = 0; r < size(); ++r) {
      all.emplace_back(reinterpret_cast<const char*>(board_->slot(r)), seat(r).message_bytes);
    }
    meet(patience);
    return all;
  }

  // A slot holds a piece for each owner.
  void do_reduce_scatter(const at::Tensor& flat) override {
    HALO_CHECK(flat.is_cpu(), "ranks in memory: a tensor on {}", flat.device().str());
    float* data = flat.data_ptr<float>();
    const int64_t part = flat.numel() / size();
    const int64_t most = kSlotBytes / static_cast<int64_t>(sizeof(float)) / size();
    for (int64_t begin = 0; begin < part; begin += most) {
      const int64_t n = std::min(most, part - begin);
      for (int64_t owner = 0; owner < size(); ++owner) {
        std::memcpy(slot(rank()) + owner * most, data + owner * part + begin, n * sizeof(float));
      }
      meet(Patience::kTimeLimit);
      float* own = data + rank() * part + begin;
      std::memcpy(own, slot(0) + rank() * most, n * sizeof(float));
      for (int64_t r = 1; r < size(); ++r) {
        const float* theirs = slot(r) + rank() * most;
        for (int64_t i = 0; i < n; ++i) own[i] += theirs[i];
      }
      meet(Patience::kTimeLimit);
    }
  }

  void do_all_gather(const at::Tensor& flat) override {
    HALO_CHECK(flat.is_cpu(), "ranks in memory: a tensor on {}", flat.device().str());
    auto* data = static_cast<std::byte*>(flat.data_ptr());
    const int64_t part = static_cast<int64_t>(flat.nbytes()) / size();
    for (int64_t begin = 0; begin < part; begin += kSlotBytes) {
      const int64_t n = std::min(kSlotBytes, part - begin);
      std::memcpy(board_->slot(rank()), data + rank() * part + begin, n);
      meet(Patience::kTimeLimit);
      for (int64_t r = 0; r < size(); ++r) {
        if (r != rank()) std::memcpy(data + r * part + begin, board_->slot(r), n);
      }
      meet(Patience::kTimeLimit);
    }
  }

  // A slot holds a piece for each of the group. Groups talk at the same meetings.
  void do_all_to_all(const at::Tensor& mine, const at::Tensor& theirs, int64_t group) override {
    HALO_CHECK(mine.is_cpu(), "ranks in memory: a tensor on {}", mine.device().str());
    const auto* from = static_cast<const std::byte*>(mine.const_data_ptr());
    auto* to = static_cast<std::byte*>(theirs.mutable_data_ptr());
    const int64_t part = static_cast<int64_t>(mine.nbytes()) / group, most = kSlotBytes / group;
    const int64_t place = rank() % group, first = rank() - place;
    for (int64_t begin = 0; begin < part; begin += most) {
      const int64_t n = std::min(most, part - begin);
      for (int64_t p = 0; p < group; ++p) {
        std::memcpy(board_->slot(rank()) + p * most, from + p * part + begin, n);
      }
      meet(Patience::kTimeLimit);
      for (int64_t p = 0; p < group; ++p) {
        std::memcpy(to + p * part + begin, board_->slot(first + p) + place * most, n);
      }
      meet(Patience::kTimeLimit);
    }
  }

  float* slot(int64_t rank) const { return reinterpret_cast<float*>(board_->slot(rank)); }

  // Returns when all ranks have come.
  void meet(Patience patience) {
    Board::Header& header = board_->header();
    check_ended();
    const uint32_t meeting = header.meeting;
    const uint64_t number = ++seat(rank()).meetings;
    if (++header.present == size()) {
      header.present = 0;
      ++header.meeting;
      wake_all(header.meeting);
      return;
    }
    WaitClock clock;
    SignsOfLife signs(size());
    double looked = 0;
    while (header.meeting == meeting) {
      sleep_at(header.meeting, meeting);
      if (header.meeting != meeting) return;
      check_ended();
      const double waited = clock.seconds();
      if (waited - looked > 0.5) {
        looked = waited;
        check_processes();
      }
      if (patience == Patience::kUnlimited) {
        check_signs(number, signs, waited);
      } else if (waited > time_limit_) {
        lose_rank(fmt::format("rank {} did not answer for {:g} seconds (run.rank_seconds)",
                              first_missing(number), time_limit_));
      }
    }
  }

  int64_t first_missing(uint64_t number) const {
    for (int64_t r = 0; r < size(); ++r) {
      if (seat(r).meetings < number) return r;
    }
    return rank();
  }

  void check_ended() const {
    const int32_t ended = board_->header().ended;
    if (ended > 0) end_with(board_->header().ended_by, ended - 1);
  }

  void check_processes() const {
    for (int64_t r = 0; r < size(); ++r) {
      const int32_t process = seat(r).process;
      if (process == 0 || lives(process)) continue;
      check_ended();  // it may have said so before it died
      lose_rank(fmt::format("rank {} (process {}) has died", r, process));
    }
  }

  // Whether those that are not at the meeting `number` live. Threads do as long as their process.
  void check_signs(uint64_t number, SignsOfLife& signs, double now) const {
    if (!board_->is_of_processes()) return;
    for (int64_t r = 0; r < size(); ++r) {
      if (seat(r).meetings >= number) continue;
      if (signs.silence(r, seat(r).signs, now) > time_limit_) lose_silent_rank(r, time_limit_);
    }
  }

  void show_signs(const std::stop_token& stop) {
    const std::chrono::duration<double> period(SignsOfLife::period(time_limit_));
    const Board::Header& header = board_->header();
    std::mutex mutex;
    std::condition_variable_any change;
    for (std::unique_lock lock(mutex); !stop.stop_requested();) {
      ++seat(rank()).signs;
      if (header.ended == kStoppedCode + 1 && header.ended_by != rank()) request_stop();
      change.wait_for(lock, stop, period, [] { return false; });
    }
  }

  const std::shared_ptr<Board> board_;
  const double time_limit_;
  // Of a process.
  std::jthread signs_;
  std::optional<AtStop> at_stop_;
};

void check_count(int64_t ranks) {
  if (ranks > Board::kMaxRanks) {
    throw_error("run.ranks: {} ranks share memory, at most {}", ranks, Board::kMaxRanks);
  }
}

}  // namespace

Board::Board(int64_t ranks) : ranks_(ranks), is_of_processes_(false) {
  check_count(ranks);
  map(-1);
}

Board::Board(int64_t ranks, const std::string& name, Role role)
    : ranks_(ranks), is_of_processes_(true) {
  check_count(ranks);
  const int flags = role == Role::kMakes ? O_CREAT | O_EXCL | O_RDWR : O_RDWR;
  const int fd = shm_open(name.c_str(), flags, 0600);
  const int64_t bytes = kHeaderBytes + ranks * kSlotBytes;
  const bool good = fd >= 0 && (role == Role::kOpens || ftruncate(fd, bytes) == 0);
  const int reason = errno;
  if (!good) {
    if (fd >= 0) close(fd);
    throw_error("ranks: cannot share memory ({}): {}", name, std::strerror(reason));
  }
  map(fd);
  close(fd);
}

void Board::map(int fd) {
  const int flags = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
  void* memory =
      mmap(nullptr, kHeaderBytes + ranks_ * kSlotBytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (memory == MAP_FAILED) {
    throw_error("ranks: cannot map {} MB of shared memory: {}", ranks_ * kSlotBytes >> 20,
                std::strerror(errno));
  }
  header_ = static_cast<Header*>(memory);  // zero bytes: a header at which nobody is yet
}

Board::~Board() {
  munmap(header_, kHeaderBytes + ranks_ * kSlotBytes);
}

void Board::unlink(const std::string& name) {
  shm_unlink(name.c_str());
}

std::byte* Board::slot(int64_t rank) const {
  return reinterpret_cast<std::byte*>(header_) + kHeaderBytes + rank * kSlotBytes;
}

std::unique_ptr<Communicator> rank_in_memory(std::shared_ptr<Board> board, int64_t rank,
                                             double time_limit) {
  return std::make_unique<RankInMemory>(std::move(board), rank, time_limit);
}

}  // namespace halo
