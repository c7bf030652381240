// The loop over chunks of rows and its autograd node. The gradients are computed in the forward
// pass, while a chunk's logits are at hand, for an incoming gradient of 1, and scaled in backward:
// recomputing the logits there would cost a fourth matrix product beside the three (logits,
// hidden's gradient, head's gradient); keeping them costs one temporary of the head's size.
#include "halo/kernels/logit_loss/chunked_loss.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The gradients for an incoming gradient of 1; undefined where not wanted.
struct Gradients {
  at::Tensor hidden;  // [N, D], in hidden's type
  at::Tensor head;    // [V, D] fp32
};

void add_chunk_gradients(const ChunkLogits& logits, const LossChunk& chunk, Gradients& gradients) {
  const int64_t count = chunk.logits.size(0);
  const at::Tensor d_logits = chunk.logits.to(logits.head().scalar_type());
  if (gradients.hidden.defined()) {
    auto d_hidden = gradients.hidden.narrow(0, chunk.first, count);
    if (d_hidden.scalar_type() == d_logits.scalar_type()) {
      at::mm_out(d_hidden, d_logits, logits.head());
    } else {
      d_hidden.copy_(at::mm(d_logits, logits.head()));
    }
  }
  if (gradients.head.defined()) {
    const auto hidden = logits.hidden().narrow(0, chunk.first, count);
    if (d_logits.scalar_type() == at::kFloat) {
      gradients.head.addmm_(d_logits.t(), hidden);
    } else {
      at::addmm_out(gradients.head, gradients.head, d_logits.t(), hidden, at::kFloat);
    }
  }
}

// The losses of all rows [N] fp32; fills those of `gradients` that are defined.
at::Tensor run_chunks(const at::Tensor& hidden, const at::Tensor& head, const ChunkLoss& loss,
                      Gradients& gradients) {
  LossChunk chunk;
  chunk.gradient = gradients.hidden.defined() || gradients.head.defined();
  const bool narrow = chunk.gradient && has_cuda_kernels(CudaKernels::kLossRows, hidden);
  ChunkLogits logits(hidden, head, narrow ? hidden.scalar_type() : at::kFloat);
  const int64_t rows = hidden.size(0);
  const int64_t step = rows_per_chunk(head.size(0), hidden.is_cpu());
  auto losses = at::empty({rows}, hidden.options().dtype(at::kFloat));
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    chunk.first = first;
    chunk.logits = logits.rows(first, count);
    chunk.losses = losses.narrow(0, first, count);
    loss(chunk);
    if (chunk.gradient) add_chunk_gradients(logits, chunk, gradients);
  }
  return losses;
}

// In fp64 and, on the CPU, in the order of the rows: at::sum's order depends on the thread count.
at::Tensor sum_rows(const at::Tensor& losses) {
  if (!losses.is_cpu()) return losses.sum(at::kDouble).to(at::kFloat);
  const float* values = losses.const_data_ptr<float>();
  double sum = 0;
  for (int64_t i = 0; i < losses.numel(); ++i) sum += values[i];
  return at::scalar_tensor(sum, losses.options());
}

class ChunkedLoss : public torch::autograd::Function<ChunkedLoss> {
 public:
  // `head_value` is head.value once more: only a tensor argument gets the node recorded for it.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& head_value, const Weight& head,
                            const ChunkLoss& loss) {
    Gradients gradients;
    if (hidden.requires_grad()) gradients.hidden = at::empty_like(hidden);
    if (head.trained()) gradients.head = at::zeros_like(head.grad);
    const auto losses = run_chunks(hidden, head_value, loss, gradients);
    context->save_for_backward({gradients.hidden, gradients.head});
    // Not among the saved variables: it changes in place between forward and backward.
    if (head.trained()) context->saved_data["head_grad"] = head.grad;
    return sum_rows(losses);
  }

  static variable_list backward(AutogradContext* context, const variable_list& incoming) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &d_hidden = saved[0], &d_head = saved[1];
    if (d_head.defined()) {
      context->saved_data["head_grad"].toTensor().addcmul_(d_head, incoming[0]);
    }
    return {d_hidden.defined() ? d_hidden * incoming[0] : at::Tensor(), at::Tensor(), at::Tensor(),
            at::Tensor()};
  }
};

void check_head(const at::Tensor& hidden, const at::Tensor& head) {
  HALO_CHECK(
      hidden.dim() == 2 && head.dim() == 2 && hidden.size(1) == head.size(1),
      "loss: hidden must be [N, D] and the head [V, D], got {} and {} dimensions with {} and "
      "{} columns",
      hidden.dim(), head.dim(), hidden.size(-1), head.size(-1));
  HALO_CHECK(hidden.scalar_type() == head.scalar_type() &&
                 (hidden.scalar_type() == at::kFloat || hidden.scalar_type() == at::kBFloat16),
             "loss: hidden and head must both be fp32 or both bf16, got {} and {}",
             at::toString(hidden.scalar_type()), at::toString(head.scalar_type()));
}

}  // namespace

int64_t rows_per_chunk(int64_t vocabulary, bool cpu) {
  const int64_t elements = cpu ? int64_t{1} << 20 : int64_t{1} << 27;
  return std::clamp<int64_t>(elements / std::max<int64_t>(vocabulary, 1), 64, cpu ? 1024 : 16384);
}

ChunkLogits::ChunkLogits(const at::Tensor& hidden, const at::Tensor& head, at::ScalarType logits) {
  check_head(hidden, head);
  hidden_ = hidden.is_cpu() ? hidden.to(at::kFloat) : hidden;
  head_ = head.is_cpu() ? head.to(at::kFloat) : head;
  const int64_t rows = std::min(hidden.size(0), rows_per_chunk(head.size(0), hidden.is_cpu()));
  buffer_ = at::empty({rows, head.size(0)}, hidden.options().dtype(logits));
}

at::Tensor ChunkLogits::rows(int64_t first, int64_t count) {
  auto out = buffer_.narrow(0, 0, count);
  const auto hidden = hidden_.narrow(0, first, count);
  if (hidden.scalar_type() == out.scalar_type()) {
    at::mm_out(out, hidden, head_.t());
  } else {
    at::mm_out(out, hidden, head_.t(), at::kFloat);
  }
  return out;
}

void check_row_weights(const char* loss, const at::Tensor& weights, int64_t rows) {
  HALO_CHECK(!weights.defined() || (weights.dim() == 1 && weights.size(0) == rows &&
                                    weights.scalar_type() == at::kFloat && weights.is_contiguous()),
             "{}: weights must be {} contiguous fp32 values", loss, rows);
}

at::Tensor chunk_weights(const at::Tensor& weights, const LossChunk& chunk) {
  if (!weights.defined()) return {};
  return weights.narrow(0, chunk.first, chunk.logits.size(0));
}

at::Tensor chunked_loss(const at::Tensor& hidden, const Weight& head, const ChunkLoss& loss) {
  check_head(hidden, head.value);
  HALO_CHECK(!head.trained() ||
                 (head.grad.sizes() == head.value.sizes() && head.grad.scalar_type() == at::kFloat),
             "loss: the head's gradient must be fp32 and of the head's shape");
  const bool wanted = hidden.requires_grad() || head.value.requires_grad();
  if (wanted && at::GradMode::is_enabled()) {
    return ChunkedLoss::apply(hidden, head.value, head, loss);
  }
  return sum_rows(chunked_row_losses(hidden, head.value, loss));
}

at::Tensor chunked_row_losses(const at::Tensor& hidden, const at::Tensor& head,
                              const ChunkLoss& loss) {
  at::NoGradGuard no_grad;
  Gradients none;
  return run_chunks(hidden, head, loss, none);
}

}  // namespace halo
