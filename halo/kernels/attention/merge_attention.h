// Attention to all keys from attention to parts of them, each with the log-sum-exp of its logits:
//   l = ln sum_p exp(l_p),   o = sum_p exp(l_p - l) o_p
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace halo {

// What the queries see of one part of the keys, none of them nothing.
struct AttentionPart {
  at::Tensor o;         // [n, H, d], contiguous, fp32 or bf16
  at::Tensor log_sums;  // [H, n] fp32, a head's one behind the other
};

class AttentionMerge {
 public:
  // Parts of one shape and type, summed in the order given. Tensors are read later, in one pass
  // over several parts.
  void add(AttentionPart part);
  // [n, H, d] in the parts' type; of at least one part, once.
  at::Tensor result();

 private:
  void fold(bool last);

  std::vector<AttentionPart> waiting_;
  AttentionPart sum_;  // of those folded before; o is fp32
};

}  // namespace halo
