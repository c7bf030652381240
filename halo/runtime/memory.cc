#include "halo/runtime/memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "c10/core/CachingDeviceAllocator.h"

namespace halo {

int64_t total_memory(const Machine& machine) {
  if (machine.device.is_cuda()) {
    const auto [free, total] =
        c10::getDeviceAllocator(at::kCUDA)->getMemoryInfo(machine.device.index());
    return static_cast<int64_t>(total);
  }
  int64_t bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  // Of cgroup 2 and 1; "max" or a huge number means no limit.
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    if (int64_t limit = 0; file >> limit) bytes = std::min(bytes, limit);
  }
  rlimit address_space{};
  if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY) {
    bytes = std::min(bytes, static_cast<int64_t>(address_space.rlim_cur));
  }
  return bytes;
}

}  // namespace halo
