#include "halo/stages/training_stage.h"

#include "ATen/ATen.h"

namespace halo {

TextScores held_out_scores(const StageContext& context, const DecoderWeights& teacher,
                           const DecoderWeights& student, int64_t row_length) {
  at::NoGradGuard no_grad;
  HeldOutArgs args;
  args.part = TextPart::kSearch;
  args.row_length = row_length;
  args.max_tokens = 32'768;
  const TextBatches text = context.held_out_batches(args);
  const TeacherStates states = teacher_states(teacher, text);
  return score_text(without_gradients(student), text, &states);
}

json::object training_figures(const TrainRecipe& train, const TrainResult& result) {
  return {{"first_loss", result.first_loss},
          {"last_loss", result.last_loss},
          {"tokens", train.steps() * train.tokens_per_step},
          {"skipped_steps", result.skipped},
          {"seconds", result.seconds}};
}

DecoderWeights with_frozen_attention(DecoderWeights student) {
  const DecoderWeights frozen = without_gradients(student);
  for (size_t i = 0; i < student.layers.size(); ++i) {
    if (std::holds_alternative<AttentionWeights>(student.layers[i].mixer)) {
      student.layers[i].mixer = frozen.layers[i].mixer;
    }
  }
  return student;
}

void check_frozen(const std::string& section, bool freeze_attention, const TrainRecipe& train) {
  if (!freeze_attention || train.weight_decay == 0) return;
  throw_error(
      "{0}.freeze_attention: {0}.weight_decay = {1} would shrink the attention layers all the "
      "same; "
      "set one of them to 0",
      section, train.weight_decay);
}

}  // namespace halo
