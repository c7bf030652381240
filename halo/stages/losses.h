// The losses of the stages as the training loop takes them: each adds gradients to its store and
// returns the figures of one micro-batch.
#pragma once

#include "halo/train/micro_batch.h"
#include "halo/train/settings.h"

namespace halo {

// What a micro-batch's loss counts. MSE: every token; KL: those with a weight, which are all but
// with data.answers_alone; cross-entropy: those with a target.
int64_t count_tokens(const TrainBatch& batch);
int64_t count_weighted(const TrainBatch& batch);
int64_t count_targets(const TrainBatch& batch);

// Next-token cross-entropy of `weights` (stage 3, pretraining). The ranks of `group` share batches.
ForwardBackward cross_entropy_step(const DecoderWeights& weights, const Machine& machine,
                                   const ContextGroup& group = {});

// Which of the two distributions the other is held to.
enum class Divergence {
  kForward,  // sum of p_teacher (ln p_teacher - ln p_student): says all that the teacher would
  kReverse,  // sum of p_student (ln p_student - ln p_teacher): says nothing that it would not
};
inline constexpr Word<Divergence> kDivergences[] = {{"reverse", Divergence::kReverse},
                                                    {"forward", Divergence::kForward}};

// Sum over tokens n of weight_n times the divergence of the student's next-token distribution from
// the teacher's, from final hidden states (linear_kl.h).
at::Tensor summed_divergence(Divergence divergence, const at::Tensor& hidden, const Weight& head,
                             const at::Tensor& teacher_hidden, const at::Tensor& teacher_head,
                             const at::Tensor& weights);

// The divergence of the student from the teacher on what `batch` says the student wrote: tokens
// without a weight are what it was given (stage on-policy). Returns [2]: the loss, and how many
// tokens it counts.
ForwardBackward on_policy_step(const DecoderWeights& student, const DecoderWeights& teacher,
                               const Machine& machine, Divergence divergence);

// KL of the student from the teacher, with cross-entropy mixed in where it has a share (stage 2;
// CrossEntropyMix).
ForwardBackward kl_step(const DecoderWeights& student, const DecoderWeights& teacher,
                        const Machine& machine, double cross_entropy_share = 0);

// Mean over layers of the MSE between the student's mixer outputs and the teacher's on the
// teacher's mixer inputs (stage 1, 1b). Returns [1 + layers]: the loss, then each layer's MSE.
// Layers are independent: each is run back as soon as the teacher has passed it, and its memory
// freed. With per-layer clipping each layer is normalised alone too: its gradient is that of its
// own MSE, as many times that of the mean as there are layers. `trained`: has the student's mixers.
// Where its ranks have layers of their own, all of them are given the same rows, of which each runs
// the teacher on its equal part; what the teacher's layers had is exchanged, so that each trains
// its layers on all rows, and returns 0 of the others.
ForwardBackward align_step(const std::vector<Mixer>& student, const ParameterStore& trained,
                           const DecoderWeights& teacher, const Machine& machine,
                           ClipMode clip_mode = ClipMode::kGlobal);

// KL from the teacher of the model between two others of the same layers: its residual stream
// behind layer i is g_i times what `attention`'s layer makes of it and 1 - g_i times what
// `recurrent`'s does, with g = sigmoid(logits), so that at 0 and 1 it is the hybrid of such layers.
// The logits [L] fp32 alone are trained. What the sum of g has beyond `budget`, or lacks, is added
// squared, in nats (hypenet.md 2.3). Returns [1 + L]: the loss, then g.
ForwardBackward gate_step(const DecoderWeights& attention, const DecoderWeights& recurrent,
                          const DecoderWeights& teacher, const Weight& logits, int64_t budget,
                          const Machine& machine);

}  // namespace halo
