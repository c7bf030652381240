// Times the kernels of lightning attention without LibTorch: every length 512 ... 131,072 with
// 131,072 tokens in all, forward and backward, each behind a check against the fp32 form. JSON on
// stdout.
//   L=halo/kernels/lightning
//   g++ -std=c++20 -O2 -I. -I/usr/local/cuda/include -c $L/lightning_{segments,map}.cc
//     halo/base/check.cc
//   nvcc -std=c++20 -O3 -I. -gencode=arch=compute_90a,code=sm_90a -o lightning_passes
//     comparisons/lightning_passes.cu $L/lightning.cu $L/lightning_{wgmma,mma,recurrent}.cu
//     lightning_{segments,map}.o check.o -lfmt
//   ./lightning_passes [wgmma|mma] [HEADS HEAD_SIZE]
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "halo/kernels/cuda/launch.h"
#include "halo/kernels/lightning/lightning_launch.h"

namespace halo {

// Of halo/kernels/cuda/cuda_form.cc, which needs LibTorch.
void check_launch(const char* kernel) {
  if (const auto status = cudaGetLastError(); status != cudaSuccess)
    throw std::runtime_error(std::string(kernel) + ": " + cudaGetErrorString(status));
}

}  // namespace halo

namespace {

using namespace halo;

constexpr int64_t kTokens = 131072;

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

template <class T>
struct Buffer {
  T* data = nullptr;
  size_t size;
  explicit Buffer(size_t n) : size(n) { check(cudaMalloc(&data, n * sizeof(T))); }
  ~Buffer() { cudaFree(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

__device__ uint32_t mix(uint32_t x) {
  x = (x ^ x >> 16) * 0x85ebca6bU;
  x = (x ^ x >> 13) * 0xc2b2ae35U;
  return x ^ x >> 16;
}

// About normal, mean 0, variance 1; the same values in both types.
__global__ void fill(__nv_bfloat16* x, float* same, size_t n, uint32_t seed) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < n;
       i += size_t{gridDim.x} * blockDim.x) {
    const uint32_t bits = mix(static_cast<uint32_t>(i) * 2654435761U ^ seed);
    float sum = 0;
    for (int b = 0; b < 4; ++b) sum += (bits >> 8 * b & 255U) / 255.0F - 0.5F;
    x[i] = __float2bfloat16(sum * 1.732F);
    same[i] = __bfloat162float(x[i]);
  }
}

// Sums of squares of the difference and of `want`, a pair a block; NaN spreads.
__global__ void compare(const __nv_bfloat16* got, const float* want, size_t n, double* sums) {
  __shared__ double part[2][256];
  double error = 0, size = 0;
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < n;
       i += size_t{gridDim.x} * blockDim.x) {
    const double difference = __bfloat162float(got[i]) - want[i];
    error += difference * difference;
    size += static_cast<double>(want[i]) * want[i];
  }
  part[0][threadIdx.x] = error;
  part[1][threadIdx.x] = size;
  __syncthreads();
  if (threadIdx.x < 2) {
    double sum = 0;
    for (int i = 0; i < 256; ++i) sum += part[threadIdx.x][i];
    sums[2 * blockIdx.x + threadIdx.x] = sum;
  }
}

double relative_error(const Buffer<__nv_bfloat16>& got, const Buffer<float>& want) {
  constexpr int kBlocks = 1024;
  Buffer<double> sums(2 * kBlocks);
  compare<<<kBlocks, 256>>>(got.data, want.data, got.size, sums.data);
  std::vector<double> host(2 * kBlocks);
  check(cudaMemcpy(host.data(), sums.data, host.size() * 8, cudaMemcpyDeviceToHost));
  double error = 0, size = 0;
  for (int i = 0; i < kBlocks; ++i) {
    error += host[2 * i];
    size += host[2 * i + 1];
  }
  return std::sqrt(error / size);
}

// Median of 11 runs after 3, in ms. The tensors are many times the cache.
template <class Run>
double time_ms(const Run& run) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  for (int i = 0; i < 3; ++i) run();
  std::vector<float> times(11);
  for (float& time : times) {
    check(cudaEventRecord(begin));
    run();
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    check(cudaEventElapsedTime(&time, begin, end));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

double copy_bandwidth() {
  constexpr size_t kBytes = size_t{1} << 31;
  Buffer<char> from(kBytes), to(kBytes);
  check(cudaMemset(from.data, 1, kBytes));
  return 2.0 * kBytes / 1e9 /
         time_ms([&] { check(cudaMemcpyAsync(to.data, from.data, kBytes, cudaMemcpyDefault)); });
}

// q, k, v, d in one type, and what is computed from them.
template <class T>
struct Tensors {
  Buffer<T> q, k, v, d, o, dq, dk, dv;
  int64_t heads, head_size;
  Tensors(size_t n, int64_t h, int64_t size)
      : q(n), k(n), v(n), d(n), o(n), dq(n), dk(n), dv(n), heads(h), head_size(size) {}

  LightningRows rows(const Buffer<T>& x) const { return {x.data, heads * head_size, head_size, 1}; }
  void forward(LightningShape shape, LightningForm form, float* final) const {
    const LightningPass pass{.q = rows(q), .k = rows(k), .v = rows(v), .o = o.data, .final = final};
    launch_lightning({&pass, 1}, shape, form, nullptr);
  }
  void backward(LightningShape shape, LightningForm form) const {
    const LightningPass ahead{.q = rows(d), .k = rows(v), .v = rows(k), .o = dq.data};
    launch_lightning({&ahead, 1}, shape, form, nullptr);
    shape.reverse = true;
    const LightningPass back[] = {{.q = rows(v), .k = rows(d), .v = rows(q), .o = dk.data},
                                  {.q = rows(k), .k = rows(q), .v = rows(d), .o = dv.data}};
    launch_lightning(back, shape, form, nullptr);
  }
};

void measure(int64_t heads, int64_t head_size, const std::string& name) {
  const LightningForm form = name == "mma" ? LightningForm::kMma : LightningForm::kWgmma;
  cudaDeviceProp card;
  check(cudaGetDeviceProperties(&card, 0));
  const double copy = copy_bandwidth();
  std::printf(
      "{\"card\": \"%s\", \"copy_tb_s\": %.3f, \"form\": \"%s\", \"heads\": %ld, "
      "\"head_size\": %ld, \"tokens\": %ld, \"results\": [",
      card.name, copy, name.c_str(), heads, head_size, kTokens);
  const size_t n = kTokens * heads * head_size;
  const Tensors<__nv_bfloat16> x(n, heads, head_size);
  const Tensors<float> exact(n, heads, head_size);
  fill<<<1024, 256>>>(x.q.data, exact.q.data, n, 1);
  fill<<<1024, 256>>>(x.k.data, exact.k.data, n, 2);
  fill<<<1024, 256>>>(x.v.data, exact.v.data, n, 3);
  fill<<<1024, 256>>>(x.d.data, exact.d.data, n, 4);
  for (int64_t length = kTokens; length >= 512; length /= 2) {
    const int64_t sequences = kTokens / length;
    std::vector<int32_t> starts;
    for (int64_t s = 0; s <= sequences; ++s) starts.push_back(static_cast<int32_t>(s * length));
    Buffer<int32_t> offsets(starts.size());
    check(cudaMemcpy(offsets.data, starts.data(), starts.size() * 4, cudaMemcpyHostToDevice));
    Buffer<float> final(sequences * heads * head_size * head_size);
    LightningShape shape{.tokens = kTokens,
                         .sequences = sequences,
                         .max_length = length,
                         .head_size = head_size,
                         .offsets = offsets.data,
                         .scale = 1 / std::sqrt(static_cast<double>(head_size))};
    for (int64_t h = 1; h <= heads; ++h) shape.slopes.push_back(std::exp2(-8.0 * h / heads));

    for (const auto* out : {&x.o, &x.dq, &x.dk, &x.dv})
      check(cudaMemset(out->data, 0xff, n * 2));  // NaN
    x.forward(shape, form, nullptr);
    x.backward(shape, form);
    exact.forward(shape, LightningForm::kRecurrent, nullptr);
    exact.backward(shape, LightningForm::kRecurrent);
    const double errors[] = {relative_error(x.o, exact.o), relative_error(x.dq, exact.dq),
                             relative_error(x.dk, exact.dk), relative_error(x.dv, exact.dv)};
    for (const double error : errors)
      if (!(error < 0x1p-8)) throw std::runtime_error("the results are wrong");

    const auto forward = [&] { x.forward(shape, form, nullptr); };
    const auto backward = [&] { x.backward(shape, form); };
    const double forward_ms = time_ms(forward), backward_ms = time_ms(backward);
    const double both_ms = time_ms([&] { forward(), backward(); });
    const double state_ms = time_ms([&] { x.forward(shape, form, final.data); });
    const double exact_ms =
        time_ms([&] { exact.forward(shape, LightningForm::kRecurrent, nullptr); });
    const double rate = 8.0 * static_cast<double>(n) / 1e9 / forward_ms;
    std::printf(
        "%s\n {\"length\": %ld, \"forward_ms\": %.4f, \"useful_tb_s\": %.3f, "
        "\"share_of_copy\": %.3f, \"forward_with_final_state_ms\": %.4f, "
        "\"backward_ms\": %.4f, \"both_ms\": %.4f, \"fp32_forward_ms\": %.3f, "
        "\"relative_rms_error\": {\"o\": %.2e, \"dq\": %.2e, \"dk\": %.2e, \"dv\": %.2e}}",
        length == kTokens ? "" : ",", length, forward_ms, rate, rate / copy, state_ms, backward_ms,
        both_ms, exact_ms, errors[0], errors[1], errors[2], errors[3]);
    std::fflush(stdout);
  }
  std::printf("\n]}\n");
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const std::string form = count > 1 ? arguments[1] : "wgmma";
    const bool sized = count > 3;
    measure(sized ? std::atoi(arguments[2]) : 16, sized ? std::atoi(arguments[3]) : 128, form);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
