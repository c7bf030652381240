// Stage 0: the student starts from the teacher's weights (hypenet.md 2.1).
#pragma once

#include <vector>

#include "halo/base/settings.h"
#include "halo/model/decoder.h"

namespace halo {

// How what the teacher does not determine starts.
enum class TransferInit {
  kMatch,       // lightning: z_proj 0, o_proj x 2, o_norm = RMS of the teacher's attention output
  kLsq,         // match, then o_proj by least squares on the teacher's mixer output
  kCalibrated,  // value scales and gates from the teacher's outputs, lsq, then some steps a layer
  kIdentity,    // z_proj 0, o_proj x 2, o_norm 1
  kRandom,      // z_proj uniform +-1/sqrt(D), o_gate normal 0.02
};
// Kept attention layers: o_gate 0 and o_proj x 2 but for kRandom.

inline constexpr Word<TransferInit> kTransferInits[] = {
    {"match", TransferInit::kMatch},
    {"lsq", TransferInit::kLsq},
    {"calibrated", TransferInit::kCalibrated},
    {"identity", TransferInit::kIdentity},
    {"random-gates", TransferInit::kRandom, "paper"}};

// Section `transfer` of a recipe.
struct TransferRecipe {
  TransferInit init = TransferInit::kMatch;
  int64_t calibration_tokens = 0;
  int64_t calibration_steps = 300;
  int64_t qk_norm_tokens = 65'536;
  bool learned_decay = false;

  void settings(Settings& s) {
    s("init", init, kTransferInits, {.help = "how gates and output norms start"});
    s("calibration_tokens", calibration_tokens,
      {.help = "tokens that match, lsq and calibrated are fitted to; 0: 4096, 65536 and 65536",
       .max = 1e9});
    s("calibration_steps", calibration_steps,
      {.help = "calibrated: updates of each lightning mixer behind the closed forms", .max = 1e6});
    s("qk_norm_tokens", qk_norm_tokens,
      {.help = "tokens over which q and k of a teacher without QK-norm are measured",
       .min = 1,
       .max = 1e9});
    s("learned_decay", learned_decay,
      {.help =
           "research: lightning decays that each token sets, at first the fixed ones; cannot be "
           "exported"});
  }
};

// The HypeNet configuration of a student of this teacher with these mixers. An Error where the
// teacher is no Transformer. Where the teacher has no QK-norm, neither have the student's attention
// layers; its lightning layers always have.
ModelConfig student_config(const ModelConfig& teacher, std::vector<MixerType> mixers,
                           bool learned_decay = false);

// The Transformer of a hybrid's shapes: one that `hybrid` could be the student of.
ModelConfig teacher_config_of(ModelConfig hybrid);
// `hybrid` with mixers of this type in every layer: what stage 1 trains (lightning), and stage 1b.
ModelConfig with_mixers(ModelConfig hybrid, MixerType type);

struct TransferArgs {
  TransferInit init = TransferInit::kMatch;
  uint64_t seed = 0;
  std::vector<Batch> calibration;  // kMatch: 4,096 tokens; kLsq and kCalibrated: 65,536
  // Where the teacher has no QK-norm: 65,536 tokens, over which q_norm and k_norm of the lightning
  // layers become the RMS of each dimension of the teacher's q and k before RoPE.
  std::vector<Batch> qk_calibration;
};

// Whether this start is fitted to calibration tokens, and their number by default; 0: it is not.
int64_t default_calibration_tokens(TransferInit init);

// The o_gate that an attention layer starts with: 0, but for kRandom.
at::Tensor initial_output_gate(at::IntArrayRef shape, int64_t layer, TransferInit init,
                               uint64_t seed);

// Whether this transfer needs qk_calibration.
bool needs_qk_calibration(const ModelConfig& teacher, const ModelConfig& student);

// Fills student.store (all parameters of the student, or only its mixers) from the teacher; of
// kCalibrated the closed forms.
void transfer(const Model& teacher, const ModelConfig& config, ParameterStore& student,
              const TransferArgs& args);

// The largest absolute difference between a student's tensors and what the teacher determines of
// them (o_proj up to its factor 2; lsq's o_proj, calibrated lightning mixers, norms and gates of
// the mixers aside): the gate of this stage. 0 after transfer; not 0 for weights that come from
// elsewhere.
double transfer_error(const Model& teacher, const ModelConfig& config,
                      const ParameterStore& student, TransferInit init);

}  // namespace halo
