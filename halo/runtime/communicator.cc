#include "halo/runtime/communicator.h"

#include <cstring>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/json.h"

namespace halo {
namespace {

constexpr size_t kLogged = 1000;

class OneRank : public Communicator {
 public:
  OneRank() : Communicator(0, 1) {}
  void end(int) override {}

 private:
  std::vector<std::string> do_exchange(const std::string& mine, Patience) override {
    return {mine};
  }
  void do_reduce_scatter(const at::Tensor&) override {}
  void do_all_gather(const at::Tensor&) override {}
  void do_all_to_all(const at::Tensor& mine, const at::Tensor& theirs, int64_t) override {
    theirs.copy_(mine);
  }
};

double seconds_of(std::chrono::system_clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

}  // namespace

template <class F>
auto Communicator::logged(const char* what, int64_t bytes, F call) {
  if (size_ == 1) return call();
  int64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = calls_++;
    log_.push_back({number, what, bytes, std::chrono::system_clock::now(), {}});
    if (log_.size() > kLogged) log_.pop_front();
  }
  struct AtEnd {
    Communicator& ranks;
    const int uncaught = std::uncaught_exceptions();
    ~AtEnd() {
      if (std::uncaught_exceptions() > uncaught) return;
      const std::lock_guard lock(ranks.mutex_);
      ranks.log_.back().end = std::chrono::system_clock::now();
    }
  } at_end{*this};
  return call();
}

std::vector<std::string> Communicator::exchange(const std::string& mine) {
  HALO_CHECK(std::ssize(mine) <= kMaxMessage, "exchange: {} bytes, at most {}", mine.size(),
             kMaxMessage);
  return logged("exchange", std::ssize(mine),
                [&] { return do_exchange(mine, Patience::kTimeLimit); });
}

std::vector<double> Communicator::sum(const std::vector<double>& mine) {
  std::string bytes(mine.size() * sizeof(double), '\0');
  std::memcpy(bytes.data(), mine.data(), bytes.size());
  std::vector<double> total(mine.size(), 0.0), part(mine.size());
  for (const std::string& theirs : exchange(bytes)) {
    HALO_CHECK(theirs.size() == bytes.size(), "sum: {} bytes from one rank, {} from another",
               theirs.size(), bytes.size());
    std::memcpy(part.data(), theirs.data(), bytes.size());
    for (size_t i = 0; i < total.size(); ++i) total[i] += part[i];
  }
  return total;
}

std::string Communicator::broadcast(const std::string& text) {
  HALO_CHECK(std::ssize(text) <= kMaxMessage, "broadcast: {} bytes, at most {}", text.size(),
             kMaxMessage);
  return logged("broadcast", std::ssize(text), [&] {
    // The first comes last.
    return is_first() ? do_exchange(text, Patience::kTimeLimit)[0]
                      : do_exchange("", Patience::kUnlimited)[0];
  });
}

void Communicator::wait() {
  logged("wait", 0, [&] { return do_exchange("", Patience::kUnlimited); });
}

void Communicator::reduce_scatter(const at::Tensor& flat) {
  HALO_CHECK(flat.dim() == 1 && flat.is_contiguous() && flat.scalar_type() == at::kFloat &&
                 flat.numel() % size_ == 0,
             "reduce_scatter: {} elements for {} ranks", flat.numel(), size_);
  logged("reduce_scatter", static_cast<int64_t>(flat.nbytes()), [&] { do_reduce_scatter(flat); });
}

void Communicator::all_gather(const at::Tensor& flat) {
  HALO_CHECK(flat.dim() == 1 && flat.is_contiguous() && flat.numel() % size_ == 0,
             "all_gather: {} elements for {} ranks", flat.numel(), size_);
  logged("all_gather", static_cast<int64_t>(flat.nbytes()), [&] { do_all_gather(flat); });
}

at::Tensor Communicator::sum(const at::Tensor& mine) {
  if (size_ == 1) return mine;
  at::Tensor all = at::zeros({size_, mine.numel()}, mine.options());
  all[rank_].copy_(mine);
  all_gather(all.view({-1}));
  at::Tensor sum = all[0].clone();
  for (int64_t r = 1; r < size_; ++r) sum += all[r];
  return sum;
}

at::Tensor Communicator::all_to_all(const at::Tensor& mine, int64_t group) {
  HALO_CHECK(mine.is_contiguous() && mine.dim() > 0 && mine.size(0) == group && size_ % group == 0,
             "all_to_all: groups of {} among {} ranks, a tensor of {}", group, size_,
             mine.dim() > 0 ? mine.size(0) : 0);
  at::Tensor theirs = at::empty_like(mine);
  logged("all_to_all", static_cast<int64_t>(mine.nbytes()),
         [&] { do_all_to_all(mine, theirs, group); });
  return theirs;
}

void Communicator::write_log(const std::filesystem::path& folder) const {
  std::string text;
  {
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : log_) {
      const bool ended = entry.end.time_since_epoch().count() > 0;
      const json::object line{{"number", entry.number},
                              {"call", entry.what},
                              {"bytes", entry.bytes},
                              {"begin", seconds_of(entry.begin)},
                              {"end", ended ? json::value(seconds_of(entry.end)) : json::value()}};
      text += json::serialize(line) + "\n";
    }
  }
  std::filesystem::create_directories(folder);
  write_file(folder / fmt::format("rank-{}.jsonl", rank_), text);
}

Communicator& one_rank() {
  static OneRank alone;
  return alone;
}

}  // namespace halo
