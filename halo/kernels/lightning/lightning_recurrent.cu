// Lightning attention in fp32 on a CUDA device, token by token as it is written: for tests and for
// recipes that train in fp32. A block has 32 columns of v, four lanes a column share its state.

#include "halo/kernels/lightning/lightning_device.cuh"

namespace halo::lightning {
namespace {

constexpr int kThreads = 128;
constexpr int kColumns = 32;
constexpr int kTokens = 16;  // brought into shared memory at once

struct Parameters {
  LaunchPlan plan;
  LightningPass pass;
};

// Lane l of a column's four holds the state's rows 16 i + 4 l .. 16 i + 4 l + 3.
template <int D>
struct State {
  float4 rows[D / 16];
};

// The state becomes (1 - loss) state + k v^T; returns the lane's part of state^T q.
template <int D>
__device__ float step(State<D>& state, const float* q, const float* k, float v, float loss,
                      int lane) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    const float4 query = *reinterpret_cast<const float4*>(q + 16 * i + 4 * lane);
    const float4 key = *reinterpret_cast<const float4*>(k + 16 * i + 4 * lane);
    float4& row = state.rows[i];
    row.x += key.x * v - loss * row.x;
    row.y += key.y * v - loss * row.y;
    row.z += key.z * v - loss * row.z;
    row.w += key.w * v - loss * row.w;
    sum += query.x * row.x + query.y * row.y + query.z * row.z + query.w * row.w;
  }
  return sum;
}

template <int D, bool kReverse>
__global__ void __launch_bounds__(kThreads) pass_kernel(const __grid_constant__ Parameters p) {
  __shared__ __align__(16) float q_tile[kTokens][D], k_tile[kTokens][D];
  __shared__ float v_tile[kTokens][kColumns];
  const LaunchPlan& plan = p.plan;
  const Item item = find_item(plan, blockIdx.x / (D / kColumns));
  const int head = plan.first_head + item.head, lane = threadIdx.x % 4;
  const int first_column = blockIdx.x % (D / kColumns) * kColumns;
  const int column = first_column + threadIdx.x / 4;
  const double slope = plan.heads[item.head].slope;
  const auto loss_each = static_cast<float>(-expm1(-slope));
  const auto row_of = [&](const LightningRows& rows, int token) {
    return static_cast<const float*>(rows.data) + head / rows.share * rows.head_stride +
           token * rows.token_stride;
  };
  const auto state_index = [&](int sequence, int key) {
    return ((static_cast<int64_t>(sequence) * plan.all_heads + head) * D + key) * D + column;
  };

  State<D> state{};
  ChunkWalk<kReverse> walk(plan, item);
  while (walk.next()) {
    if (walk.opens) {
      const float by = kReverse ? 1 / plan.scale : 1;
#pragma unroll
      for (int i = 0; i < D / 4; ++i) {
        const int key = i / 4 * 16 + 4 * lane + i % 4;
        const int64_t index =
            p.pass.initial_transposed
                ? ((static_cast<int64_t>(walk.sequence) * plan.all_heads + head) * D + column) * D +
                      key
                : state_index(walk.sequence, key);
        (&state.rows[i / 4].x)[i % 4] = p.pass.initial != nullptr ? by * p.pass.initial[index] : 0;
      }
    }
    // The gradient that opens a reversed sequence is seen by its first token undecayed.
    float loss = kReverse && walk.opens ? 0 : loss_each;
    for (int done = 0; done < walk.count; done += kTokens) {
      const int count = min(kTokens, walk.count - done);
      const auto token_at = [&](int i) {
        return kReverse ? walk.first + walk.count - 1 - done - i : walk.first + done + i;
      };
      __syncthreads();
      for (int i = threadIdx.x; i < count * D; i += kThreads) {
        const int token = token_at(i / D);
        if (!walk.warmup) q_tile[i / D][i % D] = row_of(p.pass.q, token)[i % D];
        k_tile[i / D][i % D] = row_of(p.pass.k, token)[i % D];
      }
      for (int i = threadIdx.x; i < count * kColumns; i += kThreads) {
        v_tile[i / kColumns][i % kColumns] =
            row_of(p.pass.v, token_at(i / kColumns))[first_column + i % kColumns];
      }
      __syncthreads();
      for (int i = 0; i < count; ++i) {
        float sum = step<D>(state, q_tile[i], k_tile[i], v_tile[i][threadIdx.x / 4], loss, lane);
        loss = loss_each;
        if (walk.warmup) continue;
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        if (lane == 0) {
          const int64_t row = static_cast<int64_t>(token_at(i)) * plan.all_heads + head;
          static_cast<float*>(p.pass.o)[row * D + column] = sum * plan.scale;
        }
      }
    }
    if (walk.closes && p.pass.final != nullptr) {
      const float by = kReverse ? plan.scale * static_cast<float>(exp(-slope)) : 1;
#pragma unroll
      for (int i = 0; i < D / 4; ++i) {
        p.pass.final[state_index(walk.sequence, i / 4 * 16 + 4 * lane + i % 4)] =
            by * (&state.rows[i / 4].x)[i % 4];
      }
    }
  }
}

template <int D, bool kReverse>
void launch(std::span<const LightningPass> passes, const LightningShape& shape, int processors,
            cudaStream_t stream) {
  const auto segments = plan_segments(shape, processors * 8 / (D / kColumns), kExactStateBits);
  for (const LightningPass& pass : passes) {
    Parameters parameters{.plan = {}, .pass = pass};
    for (int64_t first = 0; first < std::ssize(shape.slopes); first += kMaxHeads) {
      const int items = fill_plan(parameters.plan, shape, segments, first);
      pass_kernel<D, kReverse><<<items*(D / kColumns), kThreads, 0, stream>>>(parameters);
    }
  }
}

}  // namespace

void launch_recurrent(std::span<const LightningPass> passes, const LightningShape& shape,
                      int processors, cudaStream_t stream) {
  with_shape(shape, [&]<int D, bool kReverse>() {
    launch<D, kReverse>(passes, shape, processors, stream);
  });
}

}  // namespace halo::lightning
