// The stages of HALO (hypenet.md 2), each a function from model directories to a folder. Each can
// be rerun alone; those that train resume from their newest checkpoint.
#pragma once

#include "halo/stages/context.h"

namespace halo {

// Stage 0. OUT/step-0: a HypeNet of lightning layers alone, made of the teacher's weights.
void run_transfer(const StageContext& context, const fs::path& out);

// Stage 1. From transfer's model; trains the lightning mixers of all layers.
void run_align(const StageContext& context, const fs::path& student, const fs::path& out);

// Stage 1b. NoPE attention with an output gate in every layer, aligned to the teacher's attention.
void run_align_attention(const StageContext& context, const fs::path& out);

// Which layers keep attention. `aligned` is align's model; `attention` align_attention's, or empty:
// kept layers start as the teacher's. OUT/step-0: the hybrid; OUT/selection.json: scores and their
// uncertainty.
void run_select(const StageContext& context, const fs::path& aligned, const fs::path& attention,
                const fs::path& out);

// Stage 2 and stage 3, from a hybrid.
void run_distill(const StageContext& context, const fs::path& student, const fs::path& out);
void run_finetune(const StageContext& context, const fs::path& student, const fs::path& out);
// Shares of stage 3's tokens with more than 1/4, 1/2 and 3/4 of its sequence length in view; an
// Error where too few see far for training on them to teach anything about length.
std::vector<double> finetune_view(const StageContext& context);

// Finds the logit scale of `student` and writes it, with the weights as they are, to OUT/step-0.
void run_scale(const StageContext& context, const fs::path& student, const fs::path& out);

// Held-out explained variance of each layer's mixer, 1 - MSE / variance of the teacher's output.
std::vector<double> explained_variance(const StageContext& context,
                                       const std::vector<Mixer>& student);

}  // namespace halo
