// Lightning attention for sm_80 and later: the same work as lightning_wgmma.cu with cp.async and
// mma.sync, every warp copying and multiplying.

#include "halo/kernels/cuda/mma.cuh"
#include "halo/kernels/lightning/lightning_device.cuh"

namespace halo::lightning {
namespace {

template <int D>
struct Sizes : TileSizes<D> {
  using S = TileSizes<D>;
  static constexpr int kThreads = S::kGroups * 128;
  static constexpr int kStages = 2;
  static constexpr int kScores = kStages * S::kStage;
  static constexpr int kDecays = kScores + S::kGroups * kBlockBytes;
  static constexpr int kBytes = kDecays + sizeof(Decays);
};

struct PassParameters {
  LightningRows q, k, v;
  __nv_bfloat16* o;
  const float* initial;
  float* final;
  bool initial_transposed;
};

using Parameters = LaunchParameters<PassParameters>;

using cuda::multiply;

template <int D>
struct MmaSync {
  __device__ static void fence() {}
  __device__ static void commit() {}
  template <int kPending>
  __device__ static void wait() {}
  template <int kCount>
  __device__ static void settle(float (&)[kCount]) {}

  // d [16, 8 kTiles] += A [16, 16] B, B's 16 summed columns from 16 i on of a tile whose rows are
  // the free index.
  template <int kTiles>
  __device__ static void times_rows(float* d, const uint32_t (&a)[4], uint32_t tile, int i) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < kTiles / 2; ++n) {
      uint32_t b[4];
      load_matrices(b,
                    tile + piece_offset(16 * n + lane / 16 * 8 + lane % 8, 2 * i + lane / 8 % 2));
      multiply(d + 8 * n, a, b[0], b[1]);
      multiply(d + 8 * n + 4, a, b[2], b[3]);
    }
  }

  __device__ static void scores(float (&s)[32], uint32_t q, uint32_t k) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < 32; ++i) s[i] = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t a[4];
      load_matrices(a, q + piece_offset(row, 2 * i + lane / 16));
      times_rows<8>(s, a, k, i);
    }
  }
  __device__ static void from_state(float (&o)[32], const uint32_t (&x)[D / 16][4], uint32_t q) {
#pragma unroll
    for (int i = 0; i < 32; ++i) o[i] = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) times_rows<8>(o, x[i], q, i);
  }
  __device__ static void add_within(float (&o)[32], const uint32_t (&v)[4][4], uint32_t scores) {
#pragma unroll
    for (int i = 0; i < 4; ++i) times_rows<8>(o, v[i], scores, i);
  }
  __device__ static void update_state(float (&x)[D / 2], const uint32_t (&v)[4][4], uint32_t k) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        uint32_t b[4];
        load_matrices_transposed(
            b, k + piece_offset(16 * i + lane / 8 % 2 * 8 + lane % 8, 2 * n + lane / 16));
        multiply(x + 8 * n, v[i], b[0], b[1]);
        multiply(x + 8 * n + 4, v[i], b[2], b[3]);
      }
    }
  }
};

// Outputs leave from registers.
struct Output {
  __device__ static void publish() {
    asm volatile("bar.sync %0, 128;" ::"r"(1 + threadIdx.x / 128) : "memory");
  }
  template <class Walk>
  __device__ static bool stage(const float (&)[32], float, const Walk&) {
    return false;
  }
};

// Rows first .. first+count-1 of a head into a tile, zeros below.
template <int D>
__device__ void copy_tile(uint32_t to, const LightningRows& rows, int head, int first, int count) {
  const auto* from = static_cast<const __nv_bfloat16*>(rows.data) +
                     head / rows.share * rows.head_stride + first * rows.token_stride;
#pragma unroll
  for (int i = 0; i < kChunk * D / 8 / Sizes<D>::kThreads; ++i) {
    const int index = i * Sizes<D>::kThreads + threadIdx.x;
    const int row = index / (D / 8), piece = index % (D / 8);
    const bool inside = row < count;
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + piece_offset(row, piece)),
        "l"(from + (inside ? row * rows.token_stride + piece * 8 : 0)), "r"(inside ? 16 : 0)
        : "memory");
  }
}

template <int D, bool kReverse>
__global__ void __launch_bounds__(Sizes<D>::kThreads, Sizes<D>::kBlocksAnSm)
    pass_kernel(const __grid_constant__ Parameters parameters) {
  using S = Sizes<D>;
  extern __shared__ __align__(128) char raw[];
  const uint32_t base = cuda::shared_address(raw);
  auto& decays = *reinterpret_cast<Decays*>(raw + S::kDecays);
  const LaunchPlan& plan = parameters.plan;
  const PassParameters& pass = parameters.passes[blockIdx.x % parameters.num_passes];
  const Item item = find_item(plan, blockIdx.x / parameters.num_passes);
  const int head = plan.first_head + item.head;
  const auto bring = [&](const ChunkWalk<kReverse>& walk, int stage) {
    const uint32_t to = base + stage * S::kStage;
    if (!walk.warmup) copy_tile<D>(to, pass.q, head, walk.first, walk.count);
    copy_tile<D>(to + S::kTile, pass.k, head, walk.first, walk.count);
    copy_tile<D>(to + 2 * S::kTile, pass.v, head, walk.first, walk.count);
    asm volatile("cp.async.commit_group;" ::: "memory");
  };

  decays.fill(plan.heads[item.head].slope, threadIdx.x, S::kThreads);
  Worker<MmaSync<D>, D, kReverse> worker(plan, decays, item.head, pass.initial,
                                         pass.initial_transposed, pass.final, pass.o);
  Output output;
  ChunkWalk<kReverse> ahead(plan, item);
  bool more = ahead.next();
  bring(ahead, 0);
  for (int stage = 0; more; stage ^= 1) {
    const ChunkWalk<kReverse> walk = ahead;
    more = ahead.next();
    if (more) bring(ahead, stage ^ 1);
    if (more) {
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    __syncthreads();
    const uint32_t q = base + stage * S::kStage;
    worker.chunk(walk, q, q + S::kTile, q + 2 * S::kTile,
                 base + S::kScores + threadIdx.x / 128 * kBlockBytes, output);
    __syncthreads();
  }
}

template <int D, bool kReverse>
void launch(std::span<const LightningPass> passes, const LightningShape& shape, int processors,
            cudaStream_t stream) {
  using S = Sizes<D>;
  const auto kernel = pass_kernel<D, kReverse>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  Parameters parameters;
  parameters.num_passes = static_cast<int>(passes.size());
  for (size_t i = 0; i < passes.size(); ++i) {
    const LightningPass& pass = passes[i];
    parameters.passes[i] = {pass.q,
                            pass.k,
                            pass.v,
                            static_cast<__nv_bfloat16*>(pass.o),
                            pass.initial,
                            pass.final,
                            pass.initial_transposed};
  }
  const auto segments =
      plan_segments(shape, processors * S::kBlocksAnSm / parameters.num_passes, kStateBits);
  for (int64_t first = 0; first < std::ssize(shape.slopes); first += kMaxHeads) {
    const int items = fill_plan(parameters.plan, shape, segments, first);
    kernel<<<items * parameters.num_passes, S::kThreads, S::kBytes, stream>>>(parameters);
  }
}

}  // namespace

void launch_mma(std::span<const LightningPass> passes, const LightningShape& shape, int processors,
                cudaStream_t stream) {
  with_shape(shape, [&]<int D, bool kReverse>() {
    launch<D, kReverse>(passes, shape, processors, stream);
  });
}

}  // namespace halo::lightning
