// Attention's backward pass on a GPU by cuDNN with its sums in a fixed order, for which LibTorch
// does not ask it.
#pragma once

#include <optional>

#include "halo/kernels/attention/attention_forms.h"

namespace halo {

// Heads of a call: all, or as many as fit the memory that a call may work in (cuDNN keeps dS whole:
// sequences x heads x length^2 in bf16); none where not even the heads that share keys do, and
// for rows shorter than 4,096 tokens, for which it was not measured against Flash.
std::optional<int64_t> cudnn_heads_per_call(int64_t sequences, int64_t length, int64_t heads,
                                            int64_t groups);

// Of sequences of `length` tokens each that the forward pass gave to cuDNN
// (forward.cudnn_log_sums), `heads_per_call` heads at a time. All as attention_aten_backward takes
// them, in bf16 and contiguous. None where cuDNN has no plan for the shape: that is found out once
// a shape and device, then remembered, with a warning that says why.
std::optional<AttentionGradients> cudnn_fixed_backward(const at::Tensor& d_o, const at::Tensor& q,
                                                       const at::Tensor& k, const at::Tensor& v,
                                                       const AttentionForward& forward,
                                                       double scale, int64_t length,
                                                       int64_t heads_per_call);

}  // namespace halo
