// Losses of rows of logits on the GPU. A block takes a row: one pass finds maximum and sums
// together (a sum is scaled down whenever the maximum grows), a second one writes the gradient over
// the logits. A row of 150,000 bf16 logits is too long for shared memory; the second pass finds
// most of it in the L2 cache. Sums are fp32: a few hundred terms a thread, then a tree.
#include "halo/kernels/cuda/rows.cuh"
#include "halo/kernels/logit_loss/logit_rows_launch.h"

namespace halo {
namespace {

using cuda::exponential;
using cuda::load;
using cuda::store;

constexpr int kThreads = 512;

// Sum of exp(x - most) of what a thread has seen, and the largest x.
struct Softmax {
  float most = -INFINITY, sum = 0;
};

// Makes `most` the maximum of x too and returns the factor of sums that were made before.
template <class T, int N>
__device__ __forceinline__ float raise(float& most, const float (&x)[N]) {
  float seen = most;
#pragma unroll
  for (int i = 0; i < N; ++i) seen = fmaxf(seen, x[i]);
  if (seen == most) return 1.0f;
  const float factor = exponential<T>(most - seen);
  most = seen;
  return factor;
}

// What is left of a sum that was made below `most` where the row's maximum is `all`. A thread
// without columns has -infinity, and a sum of 0.
template <class T>
__device__ __forceinline__ float share(float most, float all) {
  return most == -INFINITY ? 0.0f : exponential<T>(most - all);
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) cross_entropy_rows(const CrossEntropyRowsLaunch args) {
  __shared__ float scratch_most[1][32], scratch_sum[1][32];
  const int64_t row = blockIdx.x, columns = args.columns, target = args.targets[row];
  T* logits = static_cast<T*>(args.logits) + row * columns;
  const int64_t first = int64_t{threadIdx.x} * N, step = int64_t{kThreads} * N;
  if (target == -1) {
    const float zero[N] = {};
    if (args.gradient)
      for (int64_t c = first; c < columns; c += step) store(zero, logits + c);
    if (threadIdx.x == 0) args.losses[row] = 0;
    return;
  }
  const bool known = target >= 0 && target < columns;
  // Before the barrier, after which the logits are overwritten.
  const float at_target = known ? cuda::widen(logits[target]) : NAN;
  Softmax mine;
  for (int64_t c = first; c < columns; c += step) {
    float x[N];
    load(logits + c, x);
    mine.sum *= raise<T>(mine.most, x);
#pragma unroll
    for (int i = 0; i < N; ++i) mine.sum += exponential<T>(x[i] - mine.most);
  }
  float most[1] = {mine.most};
  cuda::fold_block<cuda::Max>(most, scratch_most);
  float sum[1] = {mine.sum * share<T>(mine.most, most[0])};
  cuda::fold_block<cuda::Sum>(sum, scratch_sum);
  const float weight = args.weights ? args.weights[row] : 1.0f;
  if (threadIdx.x == 0) args.losses[row] = weight * (logf(sum[0]) - (at_target - most[0]));
  if (!args.gradient) return;
  const float factor = weight / sum[0];
  for (int64_t c = first; c < columns; c += step) {
    float x[N];
    load(logits + c, x);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      x[i] = exponential<T>(x[i] - most[0]) * factor;
      if (c + i == target) x[i] -= weight;
    }
    store(x, logits + c);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) kl_rows(const KlRowsLaunch args) {
  __shared__ float scratch_most[2][32], scratch_sums[3][32];
  const int64_t row = blockIdx.x, columns = args.columns;
  T* student = static_cast<T*>(args.student) + row * columns;
  const T* teacher = static_cast<const T*>(args.teacher) + row * columns;
  const int64_t target = args.targets ? args.targets[row] : -1;
  const float mixed = target == -1 ? 0.0f : args.cross_entropy_share;
  // Before the barrier, after which the logits are overwritten.
  const float at_target =
      target == -1 ? 0.0f : (target >= 0 && target < columns ? cuda::widen(student[target]) : NAN);
  const int64_t first = int64_t{threadIdx.x} * N, step = int64_t{kThreads} * N;
  Softmax of_student, of_teacher;
  float weighted = 0;  // sum of exp(t - the teacher's maximum) (t - s)
  for (int64_t c = first; c < columns; c += step) {
    float s[N], t[N];
    load(student + c, s);
    load(teacher + c, t);
    of_student.sum *= raise<T>(of_student.most, s);
    const float factor = raise<T>(of_teacher.most, t);
    of_teacher.sum *= factor;
    weighted *= factor;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      of_student.sum += exponential<T>(s[i] - of_student.most);
      const float e = exponential<T>(t[i] - of_teacher.most);
      of_teacher.sum += e;
      weighted += e * (t[i] - s[i]);
    }
  }
  float most[2] = {of_student.most, of_teacher.most};
  cuda::fold_block<cuda::Max>(most, scratch_most);
  const float teacher_share = share<T>(of_teacher.most, most[1]);
  float sums[3] = {of_student.sum * share<T>(of_student.most, most[0]),
                   of_teacher.sum * teacher_share, weighted * teacher_share};
  cuda::fold_block<cuda::Sum>(sums, scratch_sums);
  const float weight = args.weights ? args.weights[row] : 1.0f;
  if (threadIdx.x == 0) {
    const float kl = (sums[2] / sums[1] - (most[1] - most[0])) + (logf(sums[0]) - logf(sums[1]));
    const float cross_entropy = logf(sums[0]) - (at_target - most[0]);
    args.losses[row] = weight * (target == -1 ? kl : kl + mixed * (cross_entropy - kl));
  }
  if (!args.gradient) return;
  // Written so that equal rows give exactly 0 whether or not the product is fused into the
  // difference.
  const float factor = weight / sums[0], ratio = sums[0] / sums[1] * (1 - mixed);
  for (int64_t c = first; c < columns; c += step) {
    float s[N], t[N];
    load(student + c, s);
    load(teacher + c, t);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      s[i] = (exponential<T>(s[i] - most[0]) - exponential<T>(t[i] - most[1]) * ratio) * factor;
      if (c + i == target) s[i] -= weight * mixed;
    }
    store(s, student + c);
  }
}

}  // namespace

void launch_cross_entropy_rows(const CrossEntropyRowsLaunch& args, void* stream) {
  if (args.rows == 0) return;
  cuda::with_width(
      args.element, args.columns,
      [&](auto zero, auto width) {
        cross_entropy_rows<decltype(zero), width>
            <<<args.rows, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
      },
      args.logits);
  check_launch("cross_entropy_rows");
}

void launch_kl_rows(const KlRowsLaunch& args, void* stream) {
  if (args.rows == 0) return;
  cuda::with_width(
      args.element, args.columns,
      [&](auto zero, auto width) {
        kl_rows<decltype(zero), width>
            <<<args.rows, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
      },
      args.student, args.teacher);
  check_launch("kl_rows");
}

}  // namespace halo
