#include "halo/kernels/store_rows/store_rows.h"

#include "halo/base/check.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::random_tensor;

// Rows of few bytes and of many, of every type that pools have: what is named changes, in the order
// given, and nothing else.
void check(at::Device device) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kChar}) {
    for (const std::vector<int64_t>& row :
         {std::vector<int64_t>{1}, {3, 5}, {8, 128}, {4, 33, 64}}) {
      std::vector<int64_t> shape{9};
      shape.insert(shape.end(), row.begin(), row.end());
      const at::Tensor pool = random_tensor(shape, 1, at::kDouble).mul(50).to(type);
      shape[0] = 4;
      const at::Tensor x = random_tensor(shape, 2, at::kDouble).mul(50).to(type);
      const at::Tensor rows = at::tensor({7, 0, 8, 3}, at::kLong);
      at::Tensor expected = pool.clone();
      for (int64_t i = 0; i < 4; ++i) expected[rows[i].item<int64_t>()] = x[i];
      const at::Tensor stored = pool.to(device, false, /*copy=*/true);
      store_rows(stored, rows.to(device), x.to(device));
      EXPECT_TRUE(at::equal(stored.cpu(), expected)) << at::toString(type) << " " << row.size();
    }
  }
}

TEST(StoreRows, ChangesTheNamedRowsAlone) {
  check(at::kCPU);
}

TEST(StoreRowsCuda, ChangesTheNamedRowsAlone) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  check(at::kCUDA);
}

TEST(StoreRows, RefusesWhatDoesNotFit) {
  const at::Tensor pool = at::zeros({3, 4}), rows = at::zeros({1}, at::kLong);
  store_rows(pool, rows.narrow(0, 0, 0), at::zeros({0, 4}));
  EXPECT_THROW(store_rows(pool, rows, at::zeros({1, 5})), Error);
  EXPECT_THROW(store_rows(pool, rows, at::zeros({2, 4})), Error);
  EXPECT_THROW(store_rows(pool, rows, at::zeros({1, 4}, at::kDouble)), Error);
  EXPECT_THROW(store_rows(pool, at::zeros({1}, at::kInt), at::zeros({1, 4})), Error);
}

}  // namespace
}  // namespace halo
