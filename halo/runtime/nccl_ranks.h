// GPUs, one a process, over NCCL, which comes with LibTorch's CUDA library.
#pragma once

#include <memory>

#include "halo/runtime/communicator.h"
#include "halo/runtime/rank_place.h"
#include "halo/runtime/rank_words.h"

namespace halo {

// The process has its device (machine.h). `time_limit`, seconds: how long a rank waits for the
// others in a call, on the device or on the host. An Error where NCCL is not there or refuses.
// `words` must outlive it.
std::unique_ptr<Communicator> rank_on_gpu(const RankPlace& place, RankWords& words,
                                          double time_limit);

}  // namespace halo
