// The forms behind lightning_attention. All compute in fp32 whatever the inputs' type.
#pragma once

#include "halo/kernels/lightning/lightning.h"
#include "halo/kernels/lightning/lightning_launch.h"

namespace halo {

// Token by token on the CPU; results do not depend on the thread count or on other sequences.
LightningResult lightning_reference(const LightningArgs& args, const Sequences& sequences);

// Chunks of tokens as LibTorch products, on any device. Reads no device value on the host.
LightningResult lightning_aten(const LightningArgs& args, const Sequences& sequences);

struct LightningGradients {
  at::Tensor q, k, v;         // in the inputs' types
  at::Tensor state;           // [S, H, dk, dv] fp32
  at::Tensor log_decay = {};  // [N, H] fp64 where it was given
};

// Gradients of the chunked forms. d_o [N, H, dv] or d_state [S, H, dk, dv] may be undefined: zero.
LightningGradients lightning_aten_backward(const LightningArgs& args, const Sequences& sequences,
                                           const at::Tensor& d_o, const at::Tensor& d_state);

// The same as Highway loops: the CPU, fp32, fixed decays. A sequence's results do not depend on the
// others.
LightningResult lightning_cpu(const LightningArgs& args, const Sequences& sequences);
LightningGradients lightning_cpu_backward(const LightningArgs& args, const Sequences& sequences,
                                          const at::Tensor& d_o, const at::Tensor& d_state);

// Kernels of our own on a GPU: dk = dv of 64 or 128, fixed decays, in the forms of the inputs'
// type.
bool has_lightning_cuda(const LightningArgs& args);
LightningKernel lightning_kernel_for(const at::Tensor& q);
LightningResult lightning_cuda(const LightningArgs& args, const Sequences& sequences,
                               LightningKernel kernel);
LightningGradients lightning_cuda_backward(const LightningArgs& args, const Sequences& sequences,
                                           const at::Tensor& d_o, const at::Tensor& d_state,
                                           LightningKernel kernel);

}  // namespace halo
