// Times the matrix products of a training step at the shapes of HypeNet-2B: cuBLAS's own choice, as
// LibTorch calls it, beside every algorithm that cuBLASLt proposes. bf16 in, fp32 sums; forward and
// input gradient give bf16, the weight gradient is added to fp32. JSON on stdout.
//   g++ -std=c++20 -O2 -I/usr/local/cuda/include -o matrix_products comparisons/matrix_products.cc
//     -L/usr/local/cuda/lib64 -lcudart -lcublas -lcublasLt
//   ./matrix_products [ROWS...]
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // LibTorch's on Hopper
constexpr int kProposals = 64;
constexpr int64_t kMostRows = 65536;

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) throw std::runtime_error(cublasGetStatusString(status));
}

// C [m, n] = op(A) op(B) (+ C), column-major, `sum` elements summed.
struct Product {
  const char* name;
  cublasOperation_t op_a, op_b;
  int64_t m, n, sum;
  bool adds_to_fp32;
};

// y = x W^T: x [rows, in], W [out, in], row-major; dx = dy W; dW += dy^T x.
std::vector<Product> products_of(int64_t rows, int64_t in, int64_t out) {
  return {{"forward", CUBLAS_OP_T, CUBLAS_OP_N, out, rows, in, false},
          {"input gradient", CUBLAS_OP_N, CUBLAS_OP_N, in, rows, out, false},
          {"weight gradient", CUBLAS_OP_N, CUBLAS_OP_T, in, out, rows, true}};
}

struct Buffers {
  void *a, *b, *c, *workspace;
};

// Numbers between -1 and 1: a product of zeros draws less power and runs faster.
void fill(void* to, int64_t count) {
  std::vector<uint16_t> pattern(1 << 24);
  uint32_t h = 1;
  for (uint16_t& x : pattern) {
    h = h * 1664525U + 1013904223U;
    x = static_cast<uint16_t>((h >> 31 << 15) | (0x3c00 + (h >> 8 & 0x37f)));
  }
  for (int64_t i = 0; i < count; i += std::ssize(pattern)) {
    const auto now = std::min<int64_t>(std::ssize(pattern), count - i);
    check(cudaMemcpy(static_cast<uint16_t*>(to) + i, pattern.data(), now * 2,
                     cudaMemcpyHostToDevice));
  }
}

template <class Run>
double milliseconds(const Run& run, int repeats) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  run();
  check(cudaEventRecord(begin));
  for (int i = 0; i < repeats; ++i) run();
  check(cudaEventRecord(end));
  check(cudaEventSynchronize(end));
  float total = 0;
  check(cudaEventElapsedTime(&total, begin, end));
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return total / repeats;
}

double time_cublas(cublasHandle_t handle, const Product& p, const Buffers& to, int repeats) {
  const float one = 1, beta = p.adds_to_fp32 ? 1 : 0;
  const auto lda = p.op_a == CUBLAS_OP_N ? p.m : p.sum, ldb = p.op_b == CUBLAS_OP_N ? p.sum : p.n;
  return milliseconds(
      [&] {
        check(cublasGemmEx_64(handle, p.op_a, p.op_b, p.m, p.n, p.sum, &one, to.a, CUDA_R_16BF, lda,
                              to.b, CUDA_R_16BF, ldb, &beta, to.c,
                              p.adds_to_fp32 ? CUDA_R_32F : CUDA_R_16BF, p.m, CUBLAS_COMPUTE_32F,
                              CUBLAS_GEMM_DEFAULT_TENSOR_OP));
      },
      repeats);
}

// Of every proposal, in cuBLASLt's order.
std::vector<double> time_proposals(cublasLtHandle_t handle, const Product& p, const Buffers& to,
                                   int repeats) {
  cublasLtMatmulDesc_t operation;
  check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  check(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &p.op_a,
                                       sizeof p.op_a));
  check(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSB, &p.op_b,
                                       sizeof p.op_b));
  const auto layout = [](cudaDataType type, int64_t rows, int64_t columns) {
    cublasLtMatrixLayout_t result;
    check(cublasLtMatrixLayoutCreate(&result, type, rows, columns, rows));
    return result;
  };
  const auto a =
      p.op_a == CUBLAS_OP_N ? layout(CUDA_R_16BF, p.m, p.sum) : layout(CUDA_R_16BF, p.sum, p.m);
  const auto b =
      p.op_b == CUBLAS_OP_N ? layout(CUDA_R_16BF, p.sum, p.n) : layout(CUDA_R_16BF, p.n, p.sum);
  const auto c = layout(p.adds_to_fp32 ? CUDA_R_32F : CUDA_R_16BF, p.m, p.n);
  cublasLtMatmulPreference_t preference;
  check(cublasLtMatmulPreferenceCreate(&preference));
  check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &kWorkspaceBytes, sizeof kWorkspaceBytes));
  std::vector<cublasLtMatmulHeuristicResult_t> proposals(kProposals);
  int count = 0;
  check(cublasLtMatmulAlgoGetHeuristic(handle, operation, a, b, c, c, preference, kProposals,
                                       proposals.data(), &count));
  const float one = 1, beta = p.adds_to_fp32 ? 1 : 0;
  std::vector<double> times;
  for (int i = 0; i < count; ++i) {
    const auto run = [&] {
      return cublasLtMatmul(handle, operation, &one, to.a, a, to.b, b, &beta, to.c, c, to.c, c,
                            &proposals[i].algo, to.workspace, kWorkspaceBytes, nullptr);
    };
    if (proposals[i].state != CUBLAS_STATUS_SUCCESS || run() != CUBLAS_STATUS_SUCCESS) continue;
    times.push_back(milliseconds([&] { check(run()); }, repeats));
  }
  return times;
}

}  // namespace

int main(int count, char** arguments) try {
  std::vector<int64_t> row_counts;
  for (int i = 1; i < count; ++i) row_counts.push_back(std::strtoll(arguments[i], nullptr, 10));
  if (row_counts.empty()) row_counts = {6144, 16384};
  for (const int64_t rows : row_counts) {
    if (rows < 1 || rows > kMostRows) throw std::runtime_error("ROWS must be from 1 to 65536");
  }
  struct Weight {
    const char* name;
    int64_t in, out;
    int64_t most_rows;  // the head's rows come in chunks
  };
  const std::vector<Weight> weights{{"q, k, v, gate of lightning", 2048, 8192, INT64_MAX},
                                    {"q, k, v, gate of attention", 2048, 6144, INT64_MAX},
                                    {"output of a mixer", 2048, 2048, INT64_MAX},
                                    {"gate and up", 2048, 12288, INT64_MAX},
                                    {"down", 6144, 2048, INT64_MAX},
                                    {"head", 2048, 151936, 2048}};
  Buffers buffers;
  const int64_t operand = std::max<int64_t>(151936 * 2048, kMostRows * 12288);
  check(cudaMalloc(&buffers.a, operand * 2));
  check(cudaMalloc(&buffers.b, operand * 2));
  check(cudaMalloc(&buffers.c, operand * 4));
  check(cudaMalloc(&buffers.workspace, kWorkspaceBytes));
  fill(buffers.a, operand);
  fill(buffers.b, operand);
  check(cudaMemset(buffers.c, 0, operand * 4));
  cublasHandle_t cublas;
  check(cublasCreate(&cublas));
  check(cublasSetWorkspace(cublas, buffers.workspace, kWorkspaceBytes));
  cublasLtHandle_t lt;
  check(cublasLtCreate(&lt));
  cudaDeviceProp card{};
  check(cudaGetDeviceProperties(&card, 0));
  std::printf("{\"card\": \"%s\", \"cublas\": %zu, \"results\": [", card.name,
              cublasLtGetVersion());
  const char* comma = "\n";
  for (const int64_t rows : row_counts) {
    for (const Weight& weight : weights) {
      const int64_t used = std::min(rows, weight.most_rows);
      for (const Product& p : products_of(used, weight.in, weight.out)) {
        const double tflop = 2e-12 * double(p.m) * double(p.n) * double(p.sum);
        const int repeats = std::clamp(static_cast<int>(12 / tflop), 4, 60);  // some 20 ms
        // Twice, the slower card clock of the first being left out.
        time_cublas(cublas, p, buffers, repeats);
        const double own = time_cublas(cublas, p, buffers, repeats);
        const std::vector<double> times = time_proposals(lt, p, buffers, repeats);
        const auto best = std::min_element(times.begin(), times.end());
        const double again = time_cublas(cublas, p, buffers, repeats);
        std::printf(
            "%s {\"weight\": \"%s\", \"product\": \"%s\", \"rows\": %lld, \"tflop\": %.3f, "
            "\"cublas_ms\": %.4f, \"cublas_again_ms\": %.4f, \"proposals\": %zu, "
            "\"first_ms\": %.4f, \"best_ms\": %.4f, \"best\": %td}",
            comma, weight.name, p.name, static_cast<long long>(used), tflop, own, again,
            times.size(), times.empty() ? 0 : times[0], times.empty() ? 0 : *best,
            best - times.begin());
        std::fflush(stdout);
        comma = ",\n";
      }
    }
  }
  std::printf("\n]}\n");
} catch (const std::exception& error) {
  std::fprintf(stderr, "matrix_products: %s\n", error.what());
  return 1;
}
