// What goes from device to device is NCCL's; words go through a server. NCCL's kernels wait for the
// other ranks without end, so a thread looks on: where one takes too long, or a rank has died, it
// breaks them off, and the next call throws.
#include "halo/runtime/nccl_ranks.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
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
  int (*send)(const void*, size_t, int type, int peer, NcclComm, void* stream);
  int (*receive)(void*, size_t, int type, int peer, NcclComm, void* stream);
  int (*group_start)();
  int (*group_end)();
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
  find(library, "ncclSend", nccl.send);
  find(library, "ncclRecv", nccl.receive);
  find(library, "ncclGroupStart", nccl.group_start);
  find(library, "ncclGroupEnd", nccl.group_end);
  find(library, "ncclCommGetAsyncError", nccl.async_error);
  find(library, "ncclCommAbort", nccl.abort);
  find(library, "ncclCommDestroy", nccl.destroy);
  find(library, "ncclGetErrorString", nccl.error_string);
  return nccl;
}

class RankOnGpu : public Communicator {
 public:
  RankOnGpu(const RankPlace& place, RankWords& words, double time_limit)
      : Communicator(place.rank, place.size, place.local_size),
        nccl_(load_nccl()),
        device_(at::kCUDA, 0),
        time_limit_(time_limit),
        words_(words) {
    NcclId id{};
    if (is_first()) check(nccl_.get_unique_id(&id), "to make an id");
    const std::string bytes =
        words_.exchange(std::string(id.bytes, sizeof(id.bytes)), std::nullopt)[0];
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
    words_.end(exit_code);
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

  std::vector<std::string> do_exchange(const std::string& mine, Patience patience) override {
    return words_.exchange(
        mine, patience == Patience::kTimeLimit ? std::optional(time_limit_) : std::nullopt);
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

  void do_all_to_all(const at::Tensor& mine, const at::Tensor& theirs, int64_t group) override {
    const auto* from = static_cast<const std::byte*>(mine.const_data_ptr());
    auto* to = static_cast<std::byte*>(theirs.mutable_data_ptr());
    const int64_t n = static_cast<int64_t>(mine.nbytes()) / group;
    const int64_t first = rank() / group * group;
    launch("all_to_all", mine, [&](void* stream) {
      int result = nccl_.group_start();
      for (int64_t p = 0; p < group && result == kSuccess; ++p) {
        const int peer = static_cast<int>(first + p);
        result = nccl_.send(from + p * n, n, kUint8, peer, comm_, stream);
        if (result == kSuccess) {
          result = nccl_.receive(to + p * n, n, kUint8, peer, comm_, stream);
        }
      }
      const int ended = nccl_.group_end();
      return result == kSuccess ? ended : result;
    });
  }

  // On the current stream, behind what computes the tensor and before what reads it; and behind the
  // call before it, on whatever stream that was.
  template <class F>
  void launch(const char* what, const at::Tensor& tensor, F call) {
    HALO_CHECK(tensor.device() == device_, "ranks on GPUs: a tensor on {}", tensor.device().str());
    if (lost()) words_.check();
    const c10::impl::VirtualGuardImpl devices(device_.type());
    if (last_) last_->hold_back();
    const DeviceEvent begin(device_);
    check(call(devices.getStreamNativeHandle(devices.getStream(device_))), what);
    const std::lock_guard lock(mutex_);
    last_.emplace(device_);
    pending_.push_back({what, begin, *last_});
  }

  void watch() {
    std::unique_lock lock(mutex_);
    while (!change_.wait_for(lock, std::chrono::milliseconds(500), [this] { return leaving_; })) {
      if (const std::string reason = trouble(); !reason.empty()) {
        lost_ = true;
        words_.give_up(reason);
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
    if (const std::string others = words_.trouble(); !others.empty()) return others;
    Pending& first = pending_.front();
    const Clock::time_point now = Clock::now();
    if (!first.started && first.begin.passed()) first.started = now;
    if (first.started &&
        std::chrono::duration<double>(now - *first.started).count() > time_limit_) {
      return fmt::format("{} was not done in {:g} seconds (run.rank_seconds)", first.what,
                         time_limit_);
    }
    return "";
  }

  bool lost() {
    const std::lock_guard lock(mutex_);
    return lost_;
  }

  const Nccl nccl_;
  const at::Device device_;
  const double time_limit_;
  RankWords& words_;
  NcclComm comm_ = nullptr;
  std::atomic<bool> ended_ = false;
  std::optional<DeviceEvent> last_;  // the end of the call before

  std::mutex mutex_;
  std::condition_variable change_;
  std::deque<Pending> pending_;
  bool lost_ = false, leaving_ = false;
  std::thread watcher_;
};

}  // namespace

std::unique_ptr<Communicator> rank_on_gpu(const RankPlace& place, RankWords& words,
                                          double time_limit) {
  return std::make_unique<RankOnGpu>(place, words, time_limit);
}

}  // namespace halo
