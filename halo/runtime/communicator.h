// Ranks: workers that train one model together, each on rows of its own. What they tell each other
// goes through a Communicator, in one of three forms: one rank alone, ranks that share memory
// (threads of a process, or processes of a machine; ranks_in_memory.h), and GPUs over NCCL
// (nccl_ranks.h). Sums are taken in an order that the number of ranks alone decides, so the same
// number gives the same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/range.h"

namespace halo {

// A rank has died or does not answer, so no other can go on. Exit code 5.
class RankLost : public Error {
 public:
  using Error::Error;
};

// Another rank has ended with an error of its own, which it reports; `code` is its exit code.
class GroupEnded : public Error {
 public:
  GroupEnded(const std::string& what, int code) : Error(what), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

class Communicator {
 public:
  Communicator(int64_t rank, int64_t size, int64_t local_size = 1)
      : rank_(rank), size_(size), local_size_(local_size) {}
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  int64_t local_size() const { return local_size_; }  // ranks of this machine
  bool is_first() const { return rank_ == 0; }

  // All calls below are made by every rank, in the same order. They throw RankLost where a rank
  // does not take part within the group's time limit, and GroupEnded where one has failed.

  // What each rank gave, in order of rank; at most kMaxMessage bytes each.
  static constexpr int64_t kMaxMessage = int64_t{1} << 20;
  std::vector<std::string> exchange(const std::string& mine);
  std::vector<double> sum(const std::vector<double>& mine);
  // The text of the first rank. However long that takes: the others have nothing else to do, and it
  // waits for them no longer than the limit.
  std::string broadcast(const std::string& text);
  // Returns once all ranks are here, however long that takes.
  void wait();

  // This rank's of equal parts of `elements`, which their number divides.
  Range part(int64_t elements) const { return {elements / size_ * rank_, elements / size_}; }

  // Of `flat` [size() x n], on the device's current stream: n elements for each rank, in order of
  // rank. Calls on several streams are done one after another.
  // Each rank's own n become their sum over all ranks, in order of rank (fp32); the others are
  // not defined afterwards.
  void reduce_scatter(const at::Tensor& flat);
  // Each rank's own n are copied to all.
  void all_gather(const at::Tensor& flat);
  // The sum of a few values [n] on the device over all ranks, in order of rank; on every rank.
  at::Tensor sum(const at::Tensor& mine);
  // Among the ranks of a group: `group` consecutive ones, of which size() is a multiple. `mine`
  // [group, ...] contiguous: mine[p] is for the p-th of them. Returns, in the same shape, what each
  // of them had for this rank, in their order.
  at::Tensor all_to_all(const at::Tensor& mine, int64_t group);

  // Tells the others that this rank ends with this exit code, which they then do too.
  virtual void end(int exit_code) = 0;

  // The last 1,000 calls, one line of JSON each, oldest first: for those who look why a rank was
  // lost. Written to `folder`/rank-R.jsonl.
  void write_log(const std::filesystem::path& folder) const;
  // Where they go when a rank is lost; none: nowhere.
  void set_log_folder(const std::filesystem::path& folder) { log_folder_ = folder; }
  const std::filesystem::path& log_folder() const { return log_folder_; }

 protected:
  enum class Patience { kTimeLimit, kUnlimited };

 private:
  virtual std::vector<std::string> do_exchange(const std::string& mine, Patience patience) = 0;
  virtual void do_reduce_scatter(const at::Tensor& flat) = 0;
  virtual void do_all_gather(const at::Tensor& flat) = 0;
  virtual void do_all_to_all(const at::Tensor& mine, const at::Tensor& theirs, int64_t group) = 0;

  struct Entry {
    int64_t number;
    const char* what;
    int64_t bytes;
    std::chrono::system_clock::time_point begin, end;  // end: the epoch while it lasts
  };
  template <class F>
  auto logged(const char* what, int64_t bytes, F call);

  const int64_t rank_, size_, local_size_;
  mutable std::mutex mutex_;
  std::deque<Entry> log_;
  int64_t calls_ = 0;
  std::filesystem::path log_folder_;
};

// One rank, alone; it has no state.
Communicator& one_rank();

}  // namespace halo
