// What the tests of losses over a head's logits share.
#pragma once

#include <utility>
#include <vector>

#include "halo/kernels/common/weight.h"
#include "halo/kernels/logit_loss/chunked_loss.h"
#include "tests/gpu.h"
#include "tests/op_check.h"

namespace halo::test {

struct LossOutcome {
  at::Tensor rows;  // [N], each token's
  at::Tensor loss, d_hidden, d_head;
};

// What loss(hidden, head) gives on `device`, and its gradients if `incoming` arrives at it; rows of
// rows(hidden, head's value).
template <class Loss, class Rows>
LossOutcome outcome_of(const at::Tensor& hidden, const at::Tensor& head, double incoming,
                       at::Device device, const Loss& loss, const Rows& rows) {
  const Weight its_head{leaf(head.to(device), head.scalar_type()),
                        at::zeros(head.sizes(), at::TensorOptions(at::kFloat).device(device))};
  const at::Tensor its_hidden = leaf(hidden.to(device), hidden.scalar_type());
  const at::Tensor value = loss(its_hidden, its_head);
  (value * incoming).backward();
  EXPECT_FALSE(its_head.value.grad().defined());
  return {rows(its_hidden, its_head.value).cpu(), value.detach().cpu(), its_hidden.grad().cpu(),
          its_head.grad.cpu()};
}

// Loss and gradients by the tolerance rule.
inline void expect_outcome(const LossOutcome& got, const LossOutcome& want,
                           const LossOutcome& plain) {
  expect_close("d_hidden", got.d_hidden, want.d_hidden, plain.d_hidden);
  expect_close("d_head", got.d_head, want.d_head, plain.d_head);
  // One number has no RMS to speak of: its rows' errors in the worst case.
  const double rows_error = (plain.rows.to(at::kDouble) - want.rows).abs().sum().item<double>();
  EXPECT_NEAR(got.loss.item<double>(), want.loss.item<double>(),
              2 * rows_error + 0x1p-24 * want.loss.abs().item<double>());
}

inline void expect_zero(const LossOutcome& got) {
  EXPECT_EQ(got.loss.item<float>(), 0);
  EXPECT_TRUE(got.d_hidden.eq(0).all().item<bool>());
  EXPECT_TRUE(got.d_head.eq(0).all().item<bool>());
}

inline void expect_chunk(const LossChunk& got, const LossChunk& exact, const LossChunk& plain) {
  expect_close("losses", got.losses.cpu(), exact.losses, plain.losses);
  expect_close("gradient", got.logits.cpu(), exact.logits, plain.logits);
}

// The same chunk of logits for the form on the CPU, for the one in LibTorch operations and for the
// latter in fp64.
struct ChunkForms {
  explicit ChunkForms(const at::Tensor& logits)
      : cpu{0, logits.clone(), at::empty({logits.size(0)}), true},
        aten{0, logits.clone(), at::empty({logits.size(0)}), true},
        exact{0, logits.to(at::kDouble), at::empty({logits.size(0)}, at::kDouble), true} {}

  // Each by the other's error.
  void expect_agreement() const {
    expect_chunk(cpu, exact, aten);
    expect_chunk(aten, exact, cpu);
  }

  LossChunk cpu, aten, exact;
};

// loss(hidden, head) gives gradients to the head alone, to the hidden states alone, or to nothing.
template <class Loss>
void expect_gradients_where_wanted(const at::Tensor& hidden, const at::Tensor& head,
                                   const Loss& loss, const LossOutcome& want,
                                   const LossOutcome& plain) {
  const Weight trained{head, at::zeros(head.sizes(), at::kFloat)};
  loss(hidden.detach(), trained).backward();
  expect_close("d_head", trained.grad, want.d_head, plain.d_head);

  const Weight frozen{head.detach(), {}};
  loss(hidden, frozen).backward();
  expect_close("d_hidden", hidden.grad(), want.d_hidden, plain.d_hidden);

  EXPECT_FALSE(loss(hidden.detach(), frozen).requires_grad());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(loss(hidden, trained).requires_grad());
}

// loss(first, rows, head) of two parts of 60 rows, backwards one after the other.
template <class Loss>
void expect_parts_add_up(const at::Tensor& hidden, const at::Tensor& head, const Loss& loss,
                         const LossOutcome& want, const LossOutcome& plain) {
  const Weight its_head{head, at::zeros(head.sizes(), at::kFloat)};
  for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 25}, {25, 35}})
    loss(first, rows, its_head).backward();
  expect_close("d_head", its_head.grad, want.d_head, plain.d_head);
  expect_close("d_hidden", hidden.grad(), want.d_hidden, plain.d_hidden);
}

// Rows on both sides of where a chunk of a small vocabulary ends.
inline std::vector<int64_t> rows_around_chunks(int64_t vocabulary) {
  const int64_t chunk = rows_per_chunk(vocabulary, /*cpu=*/true);
  return {1, 7, chunk - 1, chunk, chunk + 1, 2 * chunk + 3};
}

// run(type, rows, vocabulary) on a GPU, by our kernels and by LibTorch's: wide and single accesses,
// fewer columns than threads and more.
template <class Run>
void for_each_gpu_case(const Run& run) {
  for (const char* kernels : {"all", "none"}) {
    const CudaKernelsSetting setting(kernels);
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      for (const auto& [rows, vocabulary] :
           {std::pair<int64_t, int64_t>{1, 33}, {40, 131}, {150, 9001}, {70, 20'000}}) {
        // The loss of one row is one number: in bf16 its rounding is luck.
        if (rows == 1 && dtype == at::kBFloat16) continue;
        SCOPED_TRACE(::testing::Message() << kernels << " " << c10::toString(dtype) << " " << rows
                                          << " x " << vocabulary);
        const PoisonUninitialized poison;
        run(dtype, rows, vocabulary);
      }
    }
  }
}

}  // namespace halo::test
