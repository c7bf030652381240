// What goes from device to device is NCCL's; words go through the store. NCCL's kernels wait for
// the other ranks without end, so a thread looks on: where one takes too long, or a rank has died,
// it breaks them off, and the next call throws.
#include "halo/runtime/nccl_ranks.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "ATen/ATen.h"
#include "halo/runtime/device_event.h"

namespace halo {
namespace {

using Clock = std::chrono::steady_clock;

// Of NCCL's C interface, which has been the same since its version 2, what is used here. Its
// header comes with a toolkit, not with LibTorch.
struct NcclId {
  char bytes[128];
};
using NcclComm = void*;
constexpr int kSuccess = 0, kInProgress = 7;  // ncclResult_t
constexpr int kUint8 = 1, kFloat32 = 7;       // ncclDataType_t
constexpr int kSum = 0;                       // ncclRedOp_t

struct Nccl {
  int (*get_unique_id)(NcclId*);
  int (*init_rank)(NcclComm*, int ranks, NcclId, int rank);
  int (*reduce_scatter)(const void*, void*, size_t, int type, int op, NcclComm, void* stream);
  int (*all_gather)(const void*, void*, size_t, int type, NcclComm, void* stream);
  int (*async_error)(NcclComm, int*);
  int (*abort)(NcclComm);
  int (*destroy)(NcclComm);
  const char* (*error_string)(int);
};

template <class F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (!function) throw_error("ranks: NCCL has no {}; LibTorch 2.11 comes with one that does", name);
}

Nccl load_nccl() {
  void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    throw_error(
        "ranks: NCCL cannot be loaded ({}); put the folder of libnccl.so.2 on "
        "LD_LIBRARY_PATH",
        dlerror());
  }
  Nccl nccl;
  find(library, "ncclGetUniqueId", nccl.get_unique_id);
  find(library, "ncclCommInitRank", nccl.init_rank);
  find(library, "ncclReduceScatter", nccl.reduce_scatter);
  find(library, "ncclAllGather", nccl.all_gather);
  find(library, "ncclCommGetAsyncError", nccl.async_error);
  find(library, "ncclCommAbort", nccl.abort);
  find(library, "ncclCommDestroy", nccl.destroy);
  find(library, "ncclGetErrorString", nccl.error_string);
  return nccl;
}

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

class RankOnGpu : public Communicator {
 public:
  RankOnGpu(const RankPlace& place, RankStore store, double time_limit)
      : Communicator(place.rank, place.size, place.local_size),
        nccl_(load_nccl()),
        device_(at::kCUDA, 0),
        time_limit_(time_limit),
        store_(std::move(store)),
        watchers_store_(store_.another()) {
    find_neighbours();
    NcclId id{};
    if (is_first()) check(nccl_.get_unique_id(&id), "to make an id");
    const std::string bytes =
        do_exchange(std::string(id.bytes, sizeof(id.bytes)), Patience::kUnlimited)[0];
    std::copy(bytes.begin(), bytes.end(), id.bytes);
    check(nccl_.init_rank(&comm_, static_cast<int>(size()), id, static_cast<int>(rank())),
          "to connect the ranks");
    watcher_ = std::thread([this] { watch(); });
  }

  ~RankOnGpu() override {
    {
      const std::lock_guard lock(mutex_);
      leaving_ = true;
    }
    change_.notify_all();
    watcher_.join();
    if (!lost()) (ended_ ? nccl_.abort : nccl_.destroy)(comm_);
  }

  void end(int exit_code) override {
    ended_ = true;
    try {
      store_.set("ended", fmt::format("{} {}", rank(), exit_code));
    } catch (const std::exception&) {  // the server may be gone, with whom it was for
    }
  }

 private:
  // A call that the device has not done yet.
  struct Pending {
    const char* what;
    DeviceEvent begin, end;
    std::optional<Clock::time_point> started = std::nullopt;
  };

  void check(int result, const char* what) const {
    if (result == kSuccess || result == kInProgress) return;
    throw_error("ranks: NCCL failed {}: {} (NCCL_DEBUG=INFO says more)", what,
                nccl_.error_string(result));
  }

  // Processes of this machine, whose death can be seen.
  void find_neighbours() {
    const std::string host = host_name();
    const auto all = do_exchange(fmt::format("{} {}", getpid(), host), Patience::kUnlimited);
    for (int64_t r = 0; r < size(); ++r) {
      const size_t space = all[r].find(' ');
      const bool is_here = all[r].substr(space + 1) == host;
      neighbours_.push_back(is_here && r != rank() ? std::stoi(all[r].substr(0, space)) : 0);
    }
  }

  std::vector<std::string> do_exchange(const std::string& mine, Patience patience) override {
    const int64_t number = exchanges_++;
    const auto key = [&](int64_t n, int64_t r) { return fmt::format("words/{}/{}", n, r); };
    std::vector<std::string> keys;
    for (int64_t r = 0; r < size(); ++r) keys.push_back(key(number, r));
    return from_store([&] {
      store_.set(key(number, rank()), mine);
      const Clock::time_point begin = Clock::now();
      while (!store_.wait(keys, 0.5)) {
        throw_if_over();
        const std::chrono::duration<double> waited = Clock::now() - begin;
        if (patience == Patience::kTimeLimit && waited.count() > time_limit_) {
          lose(fmt::format("rank {} did not answer for {:g} seconds (run.rank_seconds)",
                           first_missing(keys), time_limit_));
        }
      }
      std::vector<std::string> all = store_.get(keys);
      // All have set this one, so all have read the one before.
      if (number > 0) store_.remove(key(number - 1, rank()));
      return all;
    });
  }

  int64_t first_missing(const std::vector<std::string>& keys) {
    for (int64_t r = 0; r < size(); ++r) {
      if (!store_.get_if_there(keys[r])) return r;
    }
    return 0;
  }

  // The server's end is that of the rank that serves.
  template <class F>
  auto from_store(F call) -> decltype(call()) {
    try {
      return call();
    } catch (const c10::Error& error) {
      const std::string what = error.what_without_backtrace();
      lose("the ranks' store is gone: " + what.substr(0, what.find('\n')));
    }
  }

  void do_reduce_scatter(const at::Tensor& flat) override {
    float* data = flat.data_ptr<float>();
    const int64_t n = flat.numel() / size();
    launch("reduce_scatter", flat, [&](void* stream) {
      return nccl_.reduce_scatter(data, data + rank() * n, n, kFloat32, kSum, comm_, stream);
    });
  }

  void do_all_gather(const at::Tensor& flat) override {
    auto* data = static_cast<std::byte*>(flat.data_ptr());
    const int64_t n = static_cast<int64_t>(flat.nbytes()) / size();
    launch("all_gather", flat, [&](void* stream) {
      return nccl_.all_gather(data + rank() * n, data, n, kUint8, comm_, stream);
    });
  }

  // On the current stream, behind what computes the tensor and before what reads it.
  template <class F>
  void launch(const char* what, const at::Tensor& tensor, F call) {
    HALO_CHECK(tensor.device() == device_, "ranks on GPUs: a tensor on {}", tensor.device().str());
    if (lost()) throw_if_over();
    const c10::impl::VirtualGuardImpl devices(device_.type());
    const DeviceEvent begin(device_);
    check(call(devices.getStreamNativeHandle(devices.getStream(device_))), what);
    const std::lock_guard lock(mutex_);
    pending_.push_back({what, begin, DeviceEvent(device_)});
  }

  void watch() {
    std::unique_lock lock(mutex_);
    while (!change_.wait_for(lock, std::chrono::milliseconds(500), [this] { return leaving_; })) {
      if (const std::string reason = trouble(); !reason.empty()) {
        lost_ = reason;
        nccl_.abort(comm_);
        return;
      }
    }
  }

  // With the lock. What keeps the calls from being done; empty: nothing that is known.
  std::string trouble() {
    while (!pending_.empty() && pending_.front().end.passed()) pending_.pop_front();
    if (pending_.empty()) return "";
    int result = kSuccess;
    nccl_.async_error(comm_, &result);
    if (result != kSuccess && result != kInProgress) {
      return fmt::format("NCCL: {}", nccl_.error_string(result));
    }
    if (const std::string dead = dead_neighbour(); !dead.empty()) return dead;
    Pending& first = pending_.front();
    const Clock::time_point now = Clock::now();
    if (!first.started && first.begin.passed()) first.started = now;
    if (first.started &&
        std::chrono::duration<double>(now - *first.started).count() > time_limit_) {
      return fmt::format("{} was not done in {:g} seconds (run.rank_seconds)", first.what,
                         time_limit_);
    }
    try {
      if (watchers_store_.get_if_there("ended")) return "another rank has ended";
    } catch (const std::exception&) {
      return "the ranks' store is gone";
    }
    return "";
  }

  std::string dead_neighbour() const {
    for (int64_t r = 0; r < size(); ++r) {
      if (neighbours_[r] != 0 && kill(neighbours_[r], 0) != 0 && errno == ESRCH) {
        return fmt::format("rank {} (process {}) has died", r, neighbours_[r]);
      }
    }
    return "";
  }

  bool lost() {
    const std::lock_guard lock(mutex_);
    return !lost_.empty();
  }

  void throw_if_over() {
    if (const auto ended = from_store([&] { return store_.get_if_there("ended"); })) {
      const size_t space = ended->find(' ');
      throw GroupEnded("ended with rank " + ended->substr(0, space),
                       std::stoi(ended->substr(space + 1)));
    }
    {
      const std::lock_guard lock(mutex_);
      if (!lost_.empty()) lose(lost_);
    }
    if (const std::string dead = dead_neighbour(); !dead.empty()) lose(dead);
  }

  [[noreturn]] void lose(const std::string& why) const {
    throw RankLost(why + "; the run goes on from its newest checkpoint");
  }

  const Nccl nccl_;
  const at::Device device_;
  const double time_limit_;
  RankStore store_, watchers_store_;
  std::vector<int> neighbours_;  // process ids; 0: of another machine, or this one's own
  int64_t exchanges_ = 0;
  NcclComm comm_ = nullptr;
  std::atomic<bool> ended_ = false;

  std::mutex mutex_;
  std::condition_variable change_;
  std::deque<Pending> pending_;
  std::string lost_;
  bool leaving_ = false;
  std::thread watcher_;
};

}  // namespace

std::unique_ptr<Communicator> rank_on_gpu(const RankPlace& place, RankStore store,
                                          double time_limit) {
  return std::make_unique<RankOnGpu>(place, std::move(store), time_limit);
}

}  // namespace halo
