// The forms behind lightning_attention. All compute in fp32 whatever the inputs' type.
#pragma once

#include "halo/kernels/lightning/lightning.h"
#include "halo/kernels/lightning/lightning_launch.h"

namespace halo {

// Token by token on the CPU; results do not depend on the thread count or on other sequences.
LightningResult recurrent_lightning(const LightningArgs& args, const Sequences& sequences);

// Chunks of tokens as LibTorch products, on any device. Reads no device value on the host.
LightningResult chunked_lightning(const LightningArgs& args, const Sequences& sequences);

struct LightningGradients {
  at::Tensor q, k, v;  // in the inputs' types
  at::Tensor state;    // [S, H, dk, dv] fp32
};

// Gradients of the chunked forms. d_o [N, H, dv] or d_state [S, H, dk, dv] may be undefined: zero.
LightningGradients chunked_lightning_backward(const LightningArgs& args, const Sequences& sequences,
                                              const at::Tensor& d_o, const at::Tensor& d_state);

// The same as Highway loops: the CPU, fp32. A sequence's results do not depend on the others.
LightningResult fused_lightning(const LightningArgs& args, const Sequences& sequences);
LightningGradients fused_lightning_backward(const LightningArgs& args, const Sequences& sequences,
                                            const at::Tensor& d_o, const at::Tensor& d_state);

// Kernels of our own on a GPU: dk = dv of 64 or 128, in the forms of the inputs' type.
bool has_cuda_lightning(const LightningArgs& args);
LightningForm cuda_lightning_form(const at::Tensor& q);
LightningResult cuda_lightning(const LightningArgs& args, const Sequences& sequences,
                               LightningForm form);
LightningGradients cuda_lightning_backward(const LightningArgs& args, const Sequences& sequences,
                                           const at::Tensor& d_o, const at::Tensor& d_state,
                                           LightningForm form);

}  // namespace halo
