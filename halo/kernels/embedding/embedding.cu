// The embedding table's gradient on the GPU, without atomic additions. Tokens are sorted by id; a
// block sums a chunk of places. The sum of an id whose places all lie in the chunk goes to the
// table; at the chunk's edges it may be a part: that of an id that the chunk before began ("head",
// edges 0) or that the next one continues ("tail", edges 1). A second kernel adds each tail to the
// heads that follow it. So an id's row is written by one block, however often the id occurs.
#include <algorithm>

#include "halo/kernels/cuda/elements.cuh"
#include "halo/kernels/embedding/embedding_launch.h"

namespace halo {
namespace {

using cuda::load;
using cuda::store;

constexpr int kThreads = 256;

template <int N>
__device__ __forceinline__ void add_to_row(const float (&sum)[N], float* row) {
  float so_far[N];
  load(row, so_far);
#pragma unroll
  for (int i = 0; i < N; ++i) so_far[i] += sum[i];
  store(so_far, row);
}

struct Table {
  const int64_t *ids, *order;
  float *edges, *grad;
  int64_t tokens, columns;
};

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    sum_chunks(const Table table, const T* __restrict__ dy) {
  const int64_t c = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * N;
  if (c >= table.columns) return;
  const int64_t begin = int64_t{blockIdx.x} * kEmbeddingChunk;
  const int64_t end = min(begin + kEmbeddingChunk, table.tokens);
  float* edges = table.edges + int64_t{blockIdx.x} * 2 * table.columns + c;
  bool is_head = begin > 0 && table.ids[begin - 1] == table.ids[begin];
  float sum[N] = {};
  for (int64_t place = begin; place < end; ++place) {
    float row[N];
    load(dy + table.order[place] * table.columns + c, row);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += row[i];
    const int64_t id = table.ids[place];
    const bool goes_on = place + 1 < table.tokens && table.ids[place + 1] == id;
    if (goes_on && place + 1 < end) continue;
    if (is_head) {
      store(sum, edges);
    } else if (goes_on) {
      store(sum, edges + table.columns);
    } else {
      add_to_row(sum, table.grad + id * table.columns + c);
    }
    is_head = false;
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] = 0;
  }
}

template <int N>
__global__ void __launch_bounds__(kThreads) join_chunks(const Table table) {
  const int64_t c = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * N;
  if (c >= table.columns) return;
  const int64_t begin = int64_t{blockIdx.x} * kEmbeddingChunk, end = begin + kEmbeddingChunk;
  if (end >= table.tokens || table.ids[end - 1] != table.ids[end]) return;  // it has no tail
  const int64_t id = table.ids[end];
  if (table.ids[begin] == id && begin > 0 && table.ids[begin - 1] == id) return;  // all head
  const float* edges = table.edges + int64_t{blockIdx.x} * 2 * table.columns + c;
  float sum[N];
  load(edges + table.columns, sum);
  int64_t next = end;
  do {
    edges += 2 * table.columns;
    float head[N];
    load(edges, head);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += head[i];
    next += kEmbeddingChunk;
  } while (next < table.tokens && table.ids[next - 1] == id && table.ids[next] == id);
  add_to_row(sum, table.grad + id * table.columns + c);
}

}  // namespace

void launch_embedding_gradient(const EmbeddingLaunch& args, void* stream) {
  if (args.tokens == 0 || args.columns == 0) return;
  cuda::with_width(
      args.element, args.columns,
      [&](auto zero, auto width) {
        using T = decltype(zero);
        const Table table{args.ids, args.order, args.edges, args.grad, args.tokens, args.columns};
        const int64_t packs = args.columns / width;
        const auto threads = std::min<int64_t>(cuda::threads_for(packs), kThreads);
        const dim3 grid(embedding_chunks(args.tokens), (packs + threads - 1) / threads);
        const auto on = static_cast<cudaStream_t>(stream);
        sum_chunks<T, width><<<grid, threads, 0, on>>>(table, static_cast<const T*>(args.dy));
        join_chunks<width><<<grid, threads, 0, on>>>(table);
      },
      args.dy, args.edges, args.grad);
  check_launch("embedding");
}

}  // namespace halo
