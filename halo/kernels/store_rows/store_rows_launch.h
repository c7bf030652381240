// The kernel of store_rows.cu; store_rows.h has the formula.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

inline constexpr int64_t kStoreUnit = 16;  // bytes

struct StoreRowsLaunch {
  int64_t count = 0, row_bytes = 0;  // row_bytes: a multiple of kStoreUnit
  const int64_t* rows = nullptr;     // [count]
  const void* x = nullptr;           // [count, row_bytes], as the pool aligned to kStoreUnit
  void* pool = nullptr;
};

void launch_store_rows(const StoreRowsLaunch& args, void* stream);

}  // namespace halo
