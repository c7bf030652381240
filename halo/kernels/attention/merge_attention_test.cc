#include "halo/kernels/attention/merge_attention.h"

#include "halo/base/check.h"
#include "halo/kernels/attention/merge_attention_launch.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo {
namespace {

using test::expect_close;
using test::random_tensor;

constexpr int64_t kQueries = 37, kHeads = 3, kSize = 16, kKeysAPart = 5;

struct Inputs {
  at::Tensor q, k, v;  // of all heads and all keys
};

Inputs inputs_of(int64_t parts, at::ScalarType dtype) {
  const int64_t keys = parts * kKeysAPart;
  // Logits of some tens: parts differ by much.
  return {random_tensor({kQueries, kHeads, kSize}, 1, at::kDouble).mul(8).to(dtype),
          random_tensor({keys, kHeads, kSize}, 2, dtype),
          random_tensor({keys, kHeads, kSize}, 3, dtype)};
}

// Every query sees every key, computed in `compute`.
AttentionPart attend(const Inputs& x, int64_t begin, int64_t end, at::ScalarType compute) {
  const auto keys = [&](const at::Tensor& all) { return all.slice(0, begin, end).to(compute); };
  const at::Tensor logits = at::einsum("nhd,mhd->hnm", {x.q.to(compute), keys(x.k)});
  return {at::einsum("hnm,mhd->nhd", {logits.softmax(2), keys(x.v)}), logits.logsumexp(2)};
}

void check(int64_t parts, at::ScalarType dtype, at::Device device) {
  SCOPED_TRACE(fmt::format("{} parts", parts));
  const Inputs x = inputs_of(parts, dtype);
  AttentionMerge merge;
  for (int64_t p = 0; p < parts; ++p) {
    const AttentionPart part = attend(x, p * kKeysAPart, (p + 1) * kKeysAPart, at::kDouble);
    // With padding behind the last query of a head.
    const at::Tensor log_sums =
        at::constant_pad_nd(part.log_sums.to(at::kFloat), {0, 3}, 1e30).to(device);
    merge.add({part.o.to(dtype).contiguous().to(device), log_sums.narrow(1, 0, kQueries)});
  }
  const int64_t keys = parts * kKeysAPart;
  const at::Tensor exact = attend(x, 0, keys, at::kDouble).o;
  // Beside what fp32, or one rounding to bf16, makes of it.
  expect_close("o", merge.result().cpu(), exact,
               dtype == at::kFloat ? attend(x, 0, keys, dtype).o : exact.to(dtype));
}

TEST(MergeAttention, PartsMakeTheWhole) {
  for (const int64_t parts : {1, 2, 7, 8, 9, 20}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) check(parts, dtype, at::kCPU);
  }
}

TEST(MergeAttention, NothingAndOtherShapesAreRefused) {
  EXPECT_THROW(AttentionMerge().result(), Error);
  AttentionMerge merge;
  merge.add({at::zeros({2, 3, 8}), at::zeros({3, 2})});
  EXPECT_THROW(merge.add({at::zeros({2, 3, 16}), at::zeros({3, 2})}), Error);
  EXPECT_THROW(merge.add({at::zeros({2, 3, 8}), at::zeros({2, 3})}), Error);
}

TEST(MergeAttentionCuda, PartsMakeTheWhole) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  for (const int64_t parts : {2, 7, 8, 9, 20}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) check(parts, dtype, {at::kCUDA, 0});
  }
}

}  // namespace
}  // namespace halo
