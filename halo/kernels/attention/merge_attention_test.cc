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

// Every query sees every key; in double.
AttentionPart attend(const Inputs& x, int64_t begin, int64_t end) {
  const auto keys = [&](const at::Tensor& all) { return all.slice(0, begin, end).to(at::kDouble); };
  const at::Tensor logits = at::einsum("nhd,mhd->hnm", {x.q.to(at::kDouble), keys(x.k)});
  return {at::einsum("hnm,mhd->nhd", {logits.softmax(2), keys(x.v)}), logits.logsumexp(2)};
}

// The formula in double, of parts as they are: rounded.
at::Tensor plain(const std::vector<AttentionPart>& parts) {
  at::Tensor sum = at::zeros({kQueries, kHeads, kSize}, at::kDouble);
  at::Tensor total = at::zeros({kQueries, kHeads, 1}, at::kDouble);
  for (const AttentionPart& part : parts) {
    const at::Tensor share = part.log_sums.to(at::kDouble).exp().transpose(0, 1).unsqueeze(2);
    sum += share * part.o.to(at::kDouble);
    total += share;
  }
  return sum / total;
}

void check(int64_t count, at::ScalarType dtype, at::Device device) {
  SCOPED_TRACE(fmt::format("{} parts", count));
  const Inputs x = inputs_of(count, dtype);
  AttentionMerge merge;
  std::vector<AttentionPart> parts;
  for (int64_t p = 0; p < count; ++p) {
    const AttentionPart exact = attend(x, p * kKeysAPart, (p + 1) * kKeysAPart);
    parts.push_back({exact.o.to(dtype).contiguous(), exact.log_sums.to(at::kFloat)});
    // With padding behind the last query of a head.
    const at::Tensor log_sums = at::constant_pad_nd(parts[p].log_sums, {0, 3}, 1e30).to(device);
    merge.add({parts[p].o.to(device), log_sums.narrow(1, 0, kQueries)});
  }
  expect_close("o", merge.result().cpu(), attend(x, 0, count * kKeysAPart).o,
               plain(parts).to(dtype));
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
