#include "halo/kernels/attention/merge_attention.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/attention/merge_attention_launch.h"
#include "halo/kernels/cuda/cuda_kernels.h"

namespace halo {
namespace {

// One switch with the other kernel of attention to stored keys.
bool has_kernel(const at::Tensor& o) {
  return has_cuda_kernels(CudaKernels::kDecodeAttention, o) && o.size(2) % 8 == 0;
}

// All of them as one, in fp32.
AttentionPart composed(const std::vector<AttentionPart>& parts) {
  std::vector<at::Tensor> log_sums;
  for (const AttentionPart& part : parts) log_sums.push_back(part.log_sums);
  const at::Tensor logs = at::stack(log_sums);
  const at::Tensor shares = at::softmax(logs, 0).transpose(1, 2).unsqueeze(3);  // [P, n, H, 1]
  at::Tensor o = shares[0] * parts[0].o.to(at::kFloat);
  for (int64_t i = 1; i < std::ssize(parts); ++i) o += shares[i] * parts[i].o.to(at::kFloat);
  return {o, at::logsumexp(logs, 0)};
}

}  // namespace

void AttentionMerge::add(AttentionPart part) {
  HALO_CHECK(part.o.dim() == 3 && part.o.is_contiguous() && part.log_sums.dim() == 2 &&
                 part.log_sums.size(0) == part.o.size(1) &&
                 part.log_sums.size(1) == part.o.size(0) && part.log_sums.stride(1) == 1 &&
                 part.log_sums.scalar_type() == at::kFloat,
             "merge_attention: o must be contiguous [n, H, d], its log-sum-exps fp32 [H, n]");
  HALO_CHECK(waiting_.empty() || (waiting_[0].o.sizes() == part.o.sizes() &&
                                  waiting_[0].o.scalar_type() == part.o.scalar_type()),
             "merge_attention: parts of two shapes or types");
  if (std::ssize(waiting_) == kMostMergedParts) fold(false);
  waiting_.push_back(std::move(part));
}

at::Tensor AttentionMerge::result() {
  HALO_CHECK(!waiting_.empty(), "merge_attention: no parts");
  if (waiting_.size() == 1 && !sum_.o.defined()) return waiting_[0].o;
  fold(true);
  return sum_.o;
}

void AttentionMerge::fold(bool last) {
  const at::NoGradGuard no_grad;
  const at::Tensor& like = waiting_[0].o;
  const bool has_sum = sum_.o.defined();
  if (!has_kernel(like)) {
    const at::ScalarType dtype = like.scalar_type();
    if (has_sum) waiting_.insert(waiting_.begin(), sum_);
    sum_ = composed(waiting_);
    if (last) sum_.o = sum_.o.to(dtype);
    waiting_.clear();
    return;
  }
  if (!has_sum) {
    const auto options = like.options().dtype(at::kFloat);
    if (!last) sum_.o = at::empty(like.sizes(), options);
    sum_.log_sums = at::empty({like.size(1), like.size(0)}, options);
  }
  const at::Tensor out = last ? at::empty_like(like) : at::Tensor();
  MergeAttentionLaunch launch{
      .element = element_of(like),
      .rows = like.size(0),
      .heads = like.size(1),
      .columns = like.size(2),
      .parts = std::ssize(waiting_),
      .has_sum = has_sum,
      .sum = sum_.o.defined() ? sum_.o.mutable_data_ptr<float>() : nullptr,
      .sum_log_sums = sum_.log_sums.mutable_data_ptr<float>(),
      .out = last ? out.mutable_data_ptr() : nullptr,
  };
  for (size_t i = 0; i < waiting_.size(); ++i) {
    launch.o[i] = waiting_[i].o.const_data_ptr();
    launch.log_sums[i] = waiting_[i].log_sums.const_data_ptr<float>();
    launch.strides[i] = waiting_[i].log_sums.stride(0);
  }
  const DeviceStream stream(like);
  launch_merge_attention(launch, stream.handle());
  if (last) sum_.o = out;
  waiting_.clear();
}

}  // namespace halo
