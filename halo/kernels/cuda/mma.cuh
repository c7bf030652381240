// The tensor cores' product of one warp, and operands for it. Device code: sm_80 and later.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace halo::cuda {

// d [16, 8] += a [16, 16] b [16, 8], bf16 in fp32. With g = lane / 4 and t = lane % 4 a lane holds
// of d (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1); of a the pairs from (g, 2t), (g+8, 2t),
// (g, 2t+8), (g+8, 2t+8) on; of b the pairs (2t.., g) and (2t+8.., g). The summed index may stand
// for anything, so long as it is the same in a and b.
__device__ inline void multiply(float* d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d [16, 8] += a [16, 32] b [32, 8], all integers, a and b in int8. With g = lane / 4 and
// t = lane % 4 a lane holds of d what it holds in multiply(); of a the fours from (g, 4t), (g+8,
// 4t), (g, 4t+16), (g+8, 4t+16) on; of b those from (4t, g) and (4t+16, g). As there, the summed
// index may stand for anything.
__device__ inline void multiply_int8(int (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                     uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// d = a b + c, c all of one number; b's bytes are from 0 to 255.
__device__ inline void multiply_int8_by_bytes(int (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                              uint32_t b1, int c) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%10,%10,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c));
}

// Numbers in 16 bits as two int8: 256 high + low. Up to kMost16 in size.
constexpr float kMost16 = 32639;
struct HighLow {
  uint32_t high, low;  // four numbers each
};
__device__ __forceinline__ HighLow split16(const int (&x)[4]) {
  const auto bytes = [](uint32_t a, uint32_t b, uint32_t c, uint32_t d, int which) {
    return __byte_perm(__byte_perm(a, b, which), __byte_perm(c, d, which), 0x5410);
  };
  return {bytes(x[0] + 128, x[1] + 128, x[2] + 128, x[3] + 128, 0x51),
          bytes(x[0], x[1], x[2], x[3], 0x40)};
}

// Four int8 as bf16, exactly. A byte b stands for its low 7 bits less its high bit: 128 + either is
// the bf16 whose high byte is 0x43 and whose low byte is that part of b.
__device__ __forceinline__ uint2 widen_int8(uint32_t bytes) {
  const auto widen = [](uint32_t pair) {
    const uint32_t low = pair & 0xFF7FFF7F, high = pair & 0xFF80FF80;
    uint32_t out;
#if __CUDA_ARCH__ >= 900
    asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(low), "r"(high));
#else
    constexpr uint32_t kOne = 0x3F803F80, kSign = 0x80008000;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(low), "r"(kOne), "r"(high | kSign));
#endif
    return out;
  };
  return {widen(__byte_perm(bytes, 0x43434343, 0x4140)),
          widen(__byte_perm(bytes, 0x43434343, 0x4342))};
}

}  // namespace halo::cuda
