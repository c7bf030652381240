// Packs of elements that a thread loads and stores at once, computed with in fp32, and the choice
// of a kernel by element type and pack width. Device code: .cu files alone include it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "halo/kernels/cuda/launch.h"

namespace halo::cuda {

template <class T>
__device__ __forceinline__ float widen(T x) {
  if constexpr (sizeof(T) == 2) {
    return __bfloat162float(x);
  } else {
    return x;
  }
}

template <class T>
__device__ __forceinline__ T narrow(float x) {
  if constexpr (sizeof(T) == 2) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

// x as it is after a rounding to T.
template <class T>
__device__ __forceinline__ float rounded(float x) {
  return widen(narrow<T>(x));
}

// N elements of T, 16 bytes an access (`from` is aligned to them), or a single one.
template <int N, class T>
__device__ __forceinline__ void load(const T* from, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = widen(*from);
  } else {
    union {
      uint4 words[N * sizeof(T) / 16];
      T elements[N];
    } pack;
    static_assert(N * sizeof(T) % 16 == 0);
#pragma unroll
    for (int w = 0; w < N * sizeof(T) / 16; ++w)
      pack.words[w] = reinterpret_cast<const uint4*>(from)[w];
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = widen(pack.elements[i]);
  }
}

template <int N, class T>
__device__ __forceinline__ void store(const float (&from)[N], T* to) {
  if constexpr (N == 1) {
    *to = narrow<T>(from[0]);
  } else {
    union {
      uint4 words[N * sizeof(T) / 16];
      T elements[N];
    } pack;
    static_assert(N * sizeof(T) % 16 == 0);
#pragma unroll
    for (int i = 0; i < N; ++i) pack.elements[i] = narrow<T>(from[i]);
#pragma unroll
    for (int w = 0; w < N * sizeof(T) / 16; ++w) reinterpret_cast<uint4*>(to)[w] = pack.words[w];
  }
}

// exp(x) and 1 / (1 + exp(-x)), as exact as T can show. NaN for NaN; where exp overflows, the
// latter is 0.
template <class T>
__device__ __forceinline__ float exponential(float x) {
  if constexpr (sizeof(T) == 2) {
    return __expf(x);
  } else {
    return expf(x);
  }
}

template <class T>
__device__ __forceinline__ float sigmoid(float x) {
  if constexpr (sizeof(T) == 2) {
    return __frcp_rn(1.0f + __expf(-x));
  } else {
    return 1.0f / (1.0f + expf(-x));
  }
}

// Elements that a thread takes at once of rows that allow it: 16 bytes of bf16.
inline constexpr int kWide = 8;

// Whether rows of `columns` elements at these addresses can be read kWide elements at a time.
template <class... Rows>
bool wide_rows(int64_t columns, const Rows*... rows) {
  return columns % kWide == 0 && ((reinterpret_cast<uintptr_t>(rows) % 16 == 0) && ...);
}

// run(T{}) with the element type that `element` names.
template <class Run>
void with_element(Element element, const Run& run) {
  if (element == Element::kFloat) {
    run(float{});
  } else {
    run(__nv_bfloat16{});
  }
}

// As with_element, and with the elements that a thread takes at once as a second, constant
// argument: rows of `columns` elements begin at all of `rows`.
template <class Run, class... Rows>
void with_width(Element element, int64_t columns, const Run& run, const Rows*... rows) {
  with_element(element, [&](auto zero) {
    if (wide_rows(columns, rows...)) {
      run(zero, std::integral_constant<int, kWide>{});
    } else {
      run(zero, std::integral_constant<int, 1>{});
    }
  });
}

// Whole warps for `work` items, at least one.
inline int64_t threads_for(int64_t work) {
  return work > 0 ? (work + 31) / 32 * 32 : 32;
}

}  // namespace halo::cuda
