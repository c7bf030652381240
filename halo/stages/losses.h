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
