#include "halo/train/kept_values.h"

#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/runtime/ranks.h"
#include "tests/gpu.h"

namespace halo {
namespace {

using Use = ParameterStore::Use;

std::vector<ParameterSpec> specs() {
  return {{"model.embed_tokens.weight", {40, 10}},
          {"model.layers.0.q", {30, 10}},
          {"model.layers.0.norm", {2}},
          {"model.layers.1.q", {150}},
          {"model.norm.weight", {3}}};
}

void fill(ParameterStore& store, double offset) {
  store.master().copy_(at::arange(store.master().numel()) + offset);
  store.moment1().copy_(store.master() * 2);
  store.moment2().copy_(store.master() * 3);
  store.refresh_compute();
}

// Each kept piece of each parameter, as the four read it.
std::vector<at::Tensor> read_all(const ParameterStore& store, const KeptValues& values) {
  std::vector<at::Tensor> out;
  for (const ParameterSpec& spec : store.specs()) {
    const ParameterStore::Piece piece = store.kept_piece(spec);
    if (piece.size == 0) continue;
    for (const ReadKept* read :
         {&values.master, &values.moment1, &values.moment2, &values.compute}) {
      out.push_back((*read)({piece.in_arena, piece.size}));
      EXPECT_TRUE(out.back().is_cpu() && out.back().is_contiguous());
      EXPECT_EQ(out.back().numel(), piece.size);
    }
    EXPECT_EQ(out.back().scalar_type(), store.compute_type());
    EXPECT_TRUE(at::equal(out.back(), out[out.size() - 4].to(store.compute_type()))) << spec.name;
  }
  return out;
}

void expect_copy_is_of_its_moment(at::Device device, Communicator& ranks, Shard shard) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    ParameterStore store(specs(), Use::kTrained, compute, device, {&ranks, shard});
    for (const int64_t block_bytes : {int64_t{96}, int64_t{1} << 28}) {
      KeptCopy copy(store, block_bytes);
      for (const double offset : {0.5, 7.25}) {
        fill(store, offset);
        std::vector<at::Tensor> expected;
        for (const at::Tensor& values : read_all(store, values_of(store))) {
          expected.push_back(values.clone());
        }
        copy.take().wait();
        fill(store, 1000);
        const std::vector<at::Tensor> got = read_all(store, copy.values());
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(at::equal(got[i], expected[i])) << i;
      }
    }
  }
}

TEST(KeptCopy, IsOfItsMoment) {
  for (const Shard shard : {Shard::kNone, Shard::kOptimizer, Shard::kFull}) {
    for (const int64_t n : {1, 3}) {
      run_threads(n, 60, [&](Communicator& ranks) {
        expect_copy_is_of_its_moment(at::kCPU, ranks, shard);
      });
    }
  }
}

TEST(KeptCopyCuda, IsOfItsMoment) {
  if (!test::has_gpu()) GTEST_SKIP() << "there is no GPU here";
  expect_copy_is_of_its_moment(at::kCUDA, one_rank(), Shard::kNone);
}

}  // namespace
}  // namespace halo
