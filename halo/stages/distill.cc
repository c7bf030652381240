// Stage 2, KL from the teacher, and stage 3, cross-entropy on long sequences. Both train the whole
// student.
#include "ATen/ATen.h"
#include "halo/stages/losses.h"
#include "halo/stages/stages.h"

namespace halo {
namespace {

// Held-out figures of a student on the search half.
TextScores held_out_scores(const StageContext& context, const DecoderWeights& student,
                           int64_t row_length) {
  at::NoGradGuard no_grad;
  HeldOutArgs args;
  args.part = TextPart::kSearch;
  args.row_length = row_length;
  args.max_tokens = 32'768;
  const TextBatches text = context.held_out_batches(args);
  const TeacherStates teacher = teacher_states(context.teacher().weights, text);
  return score_text(without_gradients(student), text, &teacher);
}

json::object training_figures(const TrainRecipe& train, const TrainResult& result) {
  return {{"first_loss", result.first_loss},
          {"last_loss", result.last_loss},
          {"tokens", train.steps() * train.tokens_per_step},
          {"skipped_steps", result.skipped},
          {"seconds", result.seconds}};
}

}  // namespace

void run_distill(const StageContext& context, const fs::path& student, const fs::path& out) {
  const DistillRecipe& train = context.recipe().distill;
  Model model = context.load(student, ParameterStore::Use::kTrained);
  const Loader loader = context.loader(train, "distill");
  TrainJob job = context.job("distill", train, out, loader, *model.store, model.config);
  job.objective = {{"cross_entropy_share", train.cross_entropy_share}};
  job.forward_backward = kl_step(model.weights, context.teacher().weights, context.machine(),
                                 train.cross_entropy_share);
  const TrainResult result = halo::train(job);
  const TextScores scores = held_out_scores(context, model.weights, train.sequence_length);
  json::object figures = training_figures(train, result);
  figures["held_out_loss"] = mean_loss(scores).mean;
  finish_stage(out, "distill",
               {"held-out KL from the teacher, nats a token", mean_kl(scores).mean,
                context.recipe().gates.distill_kl, Gate::Kind::kAtMost},
               figures);
}

std::vector<double> finetune_view(const StageContext& context) {
  const Loader loader = context.loader(context.recipe().finetune, "finetune");
  std::vector<double> shares = loader.token_share_in_view({0.25, 0.5, 0.75});
  if (shares[1] < 0.3 && context.recipe().data.long_context != LongContext::kConcat) {
    throw_error(
        "finetune: only {:.0f}% of the tokens have more than half of {} tokens in view; pack "
        "with --join-sources, use longer documents or a shorter finetune.sequence_length, or "
        "set data.long_context = \"concat\"",
        100 * shares[1], loader.plan().sequence_length);
  }
  return shares;
}

void run_finetune(const StageContext& context, const fs::path& student, const fs::path& out) {
  const TrainRecipe& train = context.recipe().finetune;
  Model model = context.load(student, ParameterStore::Use::kTrained);
  const double before =
      mean_loss(held_out_scores(context, model.weights, train.sequence_length)).mean;
  const std::vector<double> in_view = finetune_view(context);
  fmt::print(stderr,
             "finetune: of its tokens {:.0f}%, {:.0f}% and {:.0f}% have more than 1/4, 1/2 and 3/4 "
             "of {} tokens in view\n",
             100 * in_view[0], 100 * in_view[1], 100 * in_view[2], train.sequence_length);
  const Loader loader = context.loader(train, "finetune");
  TrainJob job = context.job("finetune", train, out, loader, *model.store, model.config);
  job.count = count_targets;
  job.forward_backward = cross_entropy_step(model.weights, context.machine());
  const TrainResult result = halo::train(job);
  const double after =
      mean_loss(held_out_scores(context, model.weights, train.sequence_length)).mean;
  json::object figures = training_figures(train, result);
  figures["share_in_view"] = json::value_from(in_view);
  figures["held_out_loss_before"] = before;
  figures["held_out_loss"] = after;
  finish_stage(out, "finetune",
               {"fall of the held-out loss, nats a token", before - after,
                context.recipe().gates.finetune_loss_decrease, Gate::Kind::kAbove},
               figures);
}

}  // namespace halo
