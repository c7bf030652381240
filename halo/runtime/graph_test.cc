#include "halo/runtime/graph.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "ATen/ATen.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "halo/base/check.h"
#include "tests/gpu.h"

namespace halo {
namespace {

constexpr int64_t kSize = 1 << 18;

at::Tensor on_gpu(double value) {
  return at::full({kSize}, value, at::TensorOptions().device(at::kCUDA));
}

TEST(CudaGraphCuda, RunsOnWhatItsInputsHoldAtEachLaunch) {
  HALO_NEEDS_GPU();
  const at::Tensor x = on_gpu(1), sum = on_gpu(0);
  at::Tensor y;
  const auto work = [&] {
    y = (x * 2).exp().log();
    sum.add_(y);
  };
  work();
  const GraphMemory memory;
  const CudaGraph graph(x.device(), memory, work);
  EXPECT_EQ(sum[0].item<float>(), 2) << "recording runs nothing";
  for (const double value : {3.0, 5.0}) {
    x.fill_(value);
    graph.launch();
    EXPECT_NEAR(y[kSize - 1].item<float>(), 2 * value, 1e-5 * value);
  }
  EXPECT_NEAR(sum[7].item<float>(), 2 + 6 + 10, 1e-4);
}

int64_t reserved_bytes() {
  return c10::getDeviceAllocator(at::kCUDA)->getDeviceStats(0).reserved_bytes[0].current;
}

TEST(CudaGraphCuda, SharesItsMemoryWithOtherGraphsAndNobodyElse) {
  HALO_NEEDS_GPU();
  constexpr int64_t kTensors = 20;  // more than the allocator asks the device for at once
  const at::Tensor x = on_gpu(1);
  at::Tensor first, second;
  const auto work = [&x](at::Tensor& to) {
    std::vector<at::Tensor> all;
    for (int64_t i = 0; i < kTensors; ++i) all.push_back(x * 2 + i);
    to = all.back() + 0;
  };
  work(first);
  first.reset();
  const GraphMemory memory;
  const CudaGraph one(x.device(), memory, [&] { work(first); });
  const int64_t with_one = reserved_bytes();
  const CudaGraph other(x.device(), memory, [&] { work(second); });
  EXPECT_LT(reserved_bytes() - with_one, kTensors * kSize * 4 / 2) << "the other has its own";
  c10::getDeviceAllocator(at::kCUDA)->emptyCache();
  std::vector<at::Tensor> others;
  for (int64_t i = 0; i < 4 * kTensors; ++i) others.push_back(on_gpu(7));
  one.launch();
  const at::Tensor of_one = first.clone();
  other.launch();
  EXPECT_TRUE(at::equal(of_one, second));
  EXPECT_EQ(second[0].item<float>(), 2 + kTensors - 1);
  for (const at::Tensor& tensor : others) EXPECT_TRUE(tensor.eq(7).all().item<bool>());
}

// cuBLAS' workspace stays, wherever it came from.
TEST(CudaGraphCuda, MemoryAfterMemoryWithMatrixProducts) {
  HALO_NEEDS_GPU();
  const at::Tensor a = on_gpu(1).view({512, 512});
  at::Tensor y = a.mm(a);
  for (int i = 0; i < 3; ++i) {
    const auto memory = std::make_unique<GraphMemory>();
    const CudaGraph graph(a.device(), *memory, [&] { y = a.mm(a); });
    graph.launch();
    EXPECT_EQ(y[5][7].item<float>(), 512);
    y.reset();
  }
}

TEST(CudaGraphCuda, AnErrorInTheWorkLeavesTheDeviceUsable) {
  HALO_NEEDS_GPU();
  const at::Tensor x = on_gpu(1);
  const GraphMemory memory;
  const auto fails = [&] {
    const at::Tensor y = x.view({512, 512}).mm(x.view({512, 512}));
    throw_error("no more");
  };
  for (int i = 0; i < 2; ++i) EXPECT_THROW(CudaGraph(x.device(), memory, fails), Error);
  at::Tensor y = x + 1;
  const CudaGraph graph(x.device(), memory, [&] { y = x + 1; });
  graph.launch();
  EXPECT_EQ(y[0].item<float>(), 2);
}

}  // namespace
}  // namespace halo
