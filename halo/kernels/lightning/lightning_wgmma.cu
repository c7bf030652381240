// Lightning attention for sm_90a: one thread brings the chunks' tiles in by bulk tensor copies, a
// warp group for each 64 columns of v multiplies with wgmma (docs/math/lightning.md, section 4).

#include "halo/kernels/cuda/barrier.cuh"
#include "halo/kernels/lightning/lightning_device.cuh"
#include "halo/kernels/lightning/lightning_map.h"

namespace halo::lightning {
namespace {

struct PassParameters {
  CUtensorMap q, k, v, o;  // [N, H, D], boxes of 64 tokens x 64 columns
  int q_share, k_share, v_share;
  __nv_bfloat16* rows;  // of o
  const float* initial;
  float* final;
  bool initial_transposed;
};

using Parameters = LaunchParameters<PassParameters>;

template <int D>
struct Sizes : TileSizes<D> {
  using S = TileSizes<D>;
  static constexpr int kWorkers = S::kGroups * 128;
  static constexpr int kThreads = kWorkers + 128;
  static constexpr int kStages = 3;
  static constexpr int kScores = kStages * S::kStage;
  static constexpr int kOutputs = kScores + S::kGroups * 2 * kBlockBytes;
  static constexpr int kDecays = kOutputs + S::kGroups * 2 * kBlockBytes;
  static constexpr int kBarriers = kDecays + sizeof(Decays);
  static constexpr int kBytes = kBarriers + 2 * kStages * 8;
  static constexpr int kAllocated = kBytes + 1024;  // room to align
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Registers a thread, after the copying warp group has given up its own.
template <int D>
struct Registers {
  static constexpr int kWorker = D == 64 ? 208 : 240;
  static constexpr int kCopier = D == 64 ? 40 : 24;
};

__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, int column, int head,
                                int token, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(&map), "r"(column), "r"(head), "r"(token), "r"(barrier)
      : "memory");
}

__device__ inline void store_box(const CUtensorMap& map, int column, int head, int token,
                                 uint32_t from) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3}], [%4];\n"
      "cp.async.bulk.commit_group;" ::"l"(&map),
      "r"(column), "r"(head), "r"(token), "r"(from)
      : "memory");
}

// Until the copy engine has read all that this thread stored.
__device__ inline void wait_stores_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

__device__ inline void store_matrices_transposed(uint32_t address, const uint32_t (&r)[4]) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
      : "memory");
}

__device__ inline void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Operands in shared memory, 128-byte swizzle. Rows of 64 along the summed dimension (K-major) or
// along the free one (then blocks of 64 free indices lie kBlockBytes apart).
__device__ inline uint64_t descriptor(uint32_t address) {
  return (address & 0x3ffffU) >> 4 | uint64_t{kBlockBytes >> 4} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}

#define HALO_32_ACCUMULATORS(d)                                                                   \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]),    \
      "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]),  \
      "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]),  \
      "+f"(d[29]), "+f"(d[30]), "+f"(d[31])

#define HALO_32_NAMES                                                                      \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, " \
  "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"

// d [64, 64] (+)= A B, both in shared memory, K-major; 16 summed.
__device__ inline void multiply(float (&d)[32], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " HALO_32_NAMES
      ", %32, %33, p, 1, 1, 0, 0;\n"
      "}\n"
      : HALO_32_ACCUMULATORS(d)
      : "l"(a), "l"(b), "r"(accumulate));
}

// The same with A in registers; B K-major (kTransposed 0) or not (1).
template <int kTransposed>
__device__ inline void multiply(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                int accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " HALO_32_NAMES
      ", {%32, %33, %34, %35}, %36, p, 1, 1, %38;\n"
      "}\n"
      : HALO_32_ACCUMULATORS(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kTransposed));
}

// d [64, 128] += A B.
template <int kTransposed>
__device__ inline void multiply(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                int accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
      "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "
      "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, %68, p, 1, 1, %70;\n"
      "}\n"
      : HALO_32_ACCUMULATORS(d), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]),
        "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]),
        "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]),
        "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]),
        "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kTransposed));
}

template <int D>
struct Wgmma {
  __device__ static void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
  __device__ static void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
  template <int kPending>
  __device__ static void wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  }
  // Keeps reads of accumulators behind the wait before it.
  template <int kCount>
  __device__ static void settle(float (&d)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
  }

  // 16 columns further in a K-major tile, in a descriptor's units.
  __device__ static constexpr int step(int i) {
    return i / 4 * (kBlockBytes >> 4) + i % 4 * 2;
  }

  __device__ static void scores(float (&s)[32], uint32_t q, uint32_t k) {
    const uint64_t a = descriptor(q), b = descriptor(k);
#pragma unroll
    for (int i = 0; i < D / 16; ++i) multiply(s, a + step(i), b + step(i), i > 0);
  }
  __device__ static void from_state(float (&o)[32], const uint32_t (&x)[D / 16][4], uint32_t q) {
    const uint64_t b = descriptor(q);
#pragma unroll
    for (int i = 0; i < D / 16; ++i) multiply<0>(o, x[i], b + step(i), i > 0);
  }
  __device__ static void add_within(float (&o)[32], const uint32_t (&v)[4][4], uint32_t scores) {
    const uint64_t b = descriptor(scores);
#pragma unroll
    for (int i = 0; i < 4; ++i) multiply<0>(o, v[i], b + step(i), 1);
  }
  __device__ static void update_state(float (&x)[D / 2], const uint32_t (&v)[4][4], uint32_t k) {
    const uint64_t b = descriptor(k);
#pragma unroll
    for (int i = 0; i < 4; ++i) multiply<1>(x, v[i], b + i * (16 * 128 >> 4), 1);
  }
};

// Outputs of a warp group's 64 columns. Those of a whole chunk go to shared memory, where the
// group's next publish() sends them on by a bulk copy; its fence would wait for stores to global
// memory. Two buffers by turns.
class Output {
 public:
  __device__ Output(const CUtensorMap& map, int head, int group, uint32_t buffers)
      : map_(map), head_(head), group_(group), buffers_(buffers) {}

  // What the group wrote to shared memory is seen by its products and the copy engine.
  __device__ void publish() {
    fence_async_proxy();
    if (sends()) wait_stores_read();  // of the buffer that is staged next
    sync_threads(1 + group_, 128);
    if (sends() && staged_ >= 0) store_box(map_, group_ * 64, head_, staged_, buffers_ + buffer_);
    buffer_ ^= kBlockBytes;
    staged_ = -1;
  }

  // o^T as the accumulators have it; false where the chunk has fewer rows than a box.
  template <class Walk>
  __device__ bool stage(const float (&o)[32], float scale, const Walk& walk) {
    if (walk.count < kChunk) return false;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int token = lane / 16 * 8 + lane % 8, piece = 2 * warp + lane / 8 % 2;
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      uint32_t r[4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        r[i] = pack(o[4 * n + 2 * i] * scale, o[4 * n + 2 * i + 1] * scale);
      store_matrices_transposed(buffers_ + buffer_ + piece_offset(8 * n + token, piece), r);
    }
    staged_ = walk.first;
    return true;
  }

  __device__ void finish() {
    publish();
    if (sends()) wait_stores_read();
  }

 private:
  __device__ static bool sends() {
    return threadIdx.x % 128 == 0;
  }

  const CUtensorMap& map_;
  int head_, group_;
  uint32_t buffers_, buffer_ = 0;
  int staged_ = -1;  // first token of what is staged
};

template <int D>
__device__ void copy_tile(uint32_t to, const CUtensorMap& map, int head, int token,
                          uint32_t barrier) {
#pragma unroll
  for (int block = 0; block < D / 64; ++block)
    copy_box(to + block * kBlockBytes, map, block * 64, head, token, barrier);
}

// Rows from `count` on of a tile become zero; all worker threads call it.
template <int D>
__device__ void clear_rows(uint32_t tile, int count) {
  for (int i = threadIdx.x; i < (kChunk - count) * (D / 8); i += Sizes<D>::kWorkers) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(
                     tile + piece_offset(count + i / (D / 8), i % (D / 8))),
                 "r"(0)
                 : "memory");
  }
}

template <int D, bool kReverse>
__device__ void bring(const LaunchPlan& plan, const PassParameters& pass, const Item& item,
                      uint32_t base, uint32_t full, uint32_t empty) {
  using S = Sizes<D>;
  const int head = plan.first_head + item.head;
  ChunkWalk<kReverse> walk(plan, item);
  for (int step = 0; walk.next(); ++step) {
    const int stage = step % S::kStages;
    cuda::wait_barrier(empty + 8 * stage, step / S::kStages % 2 ^ 1);
    const uint32_t to = base + stage * S::kStage, barrier = full + 8 * stage;
    cuda::expect_bytes(barrier, (walk.warmup ? 2 : 3) * S::kTile);
    if (!walk.warmup) copy_tile<D>(to, pass.q, head / pass.q_share, walk.first, barrier);
    copy_tile<D>(to + S::kTile, pass.k, head / pass.k_share, walk.first, barrier);
    copy_tile<D>(to + 2 * S::kTile, pass.v, head / pass.v_share, walk.first, barrier);
  }
}

template <int D, bool kReverse>
__device__ void work(const LaunchPlan& plan, const PassParameters& pass, const Item& item,
                     const Decays& decays, uint32_t base, uint32_t full, uint32_t empty) {
  using S = Sizes<D>;
  Worker<Wgmma<D>, D, kReverse> worker(plan, decays, item.head, pass.initial,
                                       pass.initial_transposed, pass.final, pass.rows);
  const int group = threadIdx.x / 128;
  const uint32_t scores = base + S::kScores + group * 2 * kBlockBytes;
  Output output(pass.o, plan.first_head + item.head, group,
                base + S::kOutputs + group * 2 * kBlockBytes);
  ChunkWalk<kReverse> walk(plan, item);
  for (int step = 0; walk.next(); ++step) {
    const int stage = step % S::kStages;
    const uint32_t q = base + stage * S::kStage, k = q + S::kTile, v = k + S::kTile;
    cuda::wait_barrier(full + 8 * stage, step / S::kStages % 2);
    if (walk.count < kChunk) {
      clear_rows<D>(k, walk.count);
      clear_rows<D>(v, walk.count);
      fence_async_proxy();
      sync_threads(1 + S::kGroups, S::kWorkers);
    }
    // Two buffers: a slower warp may still read the scores of the chunk before.
    worker.chunk(walk, q, k, v, scores + step % 2 * kBlockBytes, output);
    __syncwarp();
    if (threadIdx.x % 32 == 0) cuda::arrive(empty + 8 * stage);
  }
  output.finish();
}

#endif

template <int D, bool kReverse>
__global__ void __launch_bounds__(Sizes<D>::kThreads, Sizes<D>::kBlocksAnSm)
    pass_kernel(const __grid_constant__ Parameters parameters) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using S = Sizes<D>;
  extern __shared__ char raw[];
  const uint32_t start = cuda::shared_address(raw), base = (start + 1023) & ~1023U;
  auto& decays = *reinterpret_cast<Decays*>(raw + (base - start) + S::kDecays);
  const uint32_t full = base + S::kBarriers, empty = full + S::kStages * 8;
  const PassParameters& pass = parameters.passes[blockIdx.x % parameters.num_passes];
  const Item item = find_item(parameters.plan, blockIdx.x / parameters.num_passes);

  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      cuda::init_barrier(full + 8 * i, 1);
      cuda::init_barrier(empty + 8 * i, S::kWorkers / 32);
    }
    cuda::publish_barriers();
    fence_async_proxy();
  }
  decays.fill(parameters.plan.heads[item.head].slope, threadIdx.x, S::kThreads);
  __syncthreads();
  if (threadIdx.x < S::kWorkers) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers<D>::kWorker));
    work<D, kReverse>(parameters.plan, pass, item, decays, base, full, empty);
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers<D>::kCopier));
    if (threadIdx.x == S::kWorkers)
      bring<D, kReverse>(parameters.plan, pass, item, base, full, empty);
  }
#endif
}

template <int D, bool kReverse>
void launch(std::span<const LightningPass> passes, const LightningShape& shape, int processors,
            cudaStream_t stream) {
  using S = Sizes<D>;
  const auto kernel = pass_kernel<D, kReverse>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kAllocated);
  Parameters parameters;
  parameters.num_passes = static_cast<int>(passes.size());
  const auto heads = static_cast<int64_t>(shape.slopes.size());
  for (size_t i = 0; i < passes.size(); ++i) {
    const LightningPass& pass = passes[i];
    PassParameters& to = parameters.passes[i];
    to.q = make_row_map(pass.q, shape.tokens, heads, D, kChunk);
    to.k = make_row_map(pass.k, shape.tokens, heads, D, kChunk);
    to.v = make_row_map(pass.v, shape.tokens, heads, D, kChunk);
    to.q_share = pass.q.share;
    to.k_share = pass.k.share;
    to.v_share = pass.v.share;
    to.o = make_row_map({pass.o, heads * D, D, 1}, shape.tokens, heads, D, kChunk);
    to.rows = static_cast<__nv_bfloat16*>(pass.o);
    to.initial = pass.initial;
    to.initial_transposed = pass.initial_transposed;
    to.final = pass.final;
  }
  const auto segments =
      plan_segments(shape, processors * S::kBlocksAnSm / parameters.num_passes, kStateBits);
  for (int64_t first = 0; first < heads; first += kMaxHeads) {
    const int items = fill_plan(parameters.plan, shape, segments, first);
    kernel<<<items * parameters.num_passes, S::kThreads, S::kAllocated, stream>>>(parameters);
  }
}

}  // namespace

void launch_wgmma(std::span<const LightningPass> passes, const LightningShape& shape,
                  int processors, cudaStream_t stream) {
  with_shape(shape, [&]<int D, bool kReverse>() {
    launch<D, kReverse>(passes, shape, processors, stream);
  });
}

}  // namespace halo::lightning
