// Lightning attention of a decoding step: a layer's stacked projection to the mixer's output, with
// the states of the sequences brought on in their place (hypenet.md 1.2).
#pragma once

#include <optional>
#include <vector>

#include "halo/kernels/common/sequences.h"
#include "halo/kernels/rope/rope.h"

namespace halo {

struct LightningDecode {
  HeadSplit split;  // of the stacked projection, whose gate is left alone
  Weight q_norm, k_norm;
  std::optional<RopeTables> rope;
  std::vector<double> slopes;  // H
  double scale = 1;
};

// Whether calls on tensors like this one are the kernel, which reads nothing on the host.
bool has_lightning_decode_kernel(const at::Tensor& like, int64_t heads, int64_t head_dim);

// n new tokens of each of S sequences: stacked [S n, q, k, v (, gate)] -> [S n, H d] in its type.
// states [slots, H, d, d] fp32; slots [S] int64 on the device, each its own: sequence s has the
// state slots[s], or where that is negative none and any output. No gradients.
at::Tensor lightning_decode(const at::Tensor& stacked, const LightningDecode& args,
                            const at::Tensor& states, const at::Tensor& slots, Kernels kernels);

}  // namespace halo
