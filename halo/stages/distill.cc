// Stage 2, KL from the teacher, and stage 3, cross-entropy on long sequences. Both train the whole
// student, without the logit scale that its config.json may have: an inference-time setting, which
// stays in the file.
#include "halo/stages/distill.h"

#include "ATen/ATen.h"
#include "halo/base/progress.h"
#include "halo/stages/losses.h"
#include "halo/stages/training_stage.h"

namespace halo {
namespace {

// Whose rows are one piece where the recipe lets any document fill them.
Loader finetune_loader(const FinetuneRecipe& recipe, const StageInputs& inputs,
                       const std::string& stage) {
  DataRecipe data = inputs.data();
  if (data.long_context == LongContext::kConcat) data.packing = Packing::kConcat;
  return inputs.loader(data, recipe, stage);
}

}  // namespace

DistillRecipe::DistillRecipe() {
  tokens = 983'040'000;
  sequence_length = 512;
  tokens_per_step = 49'152;
  learning_rate = 1e-4;
}

FinetuneRecipe::FinetuneRecipe() {
  tokens = 1'048'576'000;
  sequence_length = 16'384;
  tokens_per_step = 2'097'152;
  learning_rate = 1e-5;
  schedule = RateCurve::kConstant;
  micro_batch_rows = 1;
}

void check_context_ranks(int64_t context_ranks, const ModelConfig& student) {
  if (context_ranks > 1 && student.lightning_learned_decay) {
    throw_error(
        "finetune.context_ranks: {} ranks cannot share the states of a student with "
        "transfer.learned_decay; take 1, or fixed decays",
        context_ranks);
  }
  const auto possible = [&](int64_t n) {
    return can_share_heads(n, student.num_heads, student.num_kv_heads);
  };
  if (possible(context_ranks)) return;
  std::vector<int64_t> counts;
  for (int64_t n = 1; n <= student.num_heads; ++n) {
    if (possible(n)) counts.push_back(n);
  }
  throw_error(
      "finetune.context_ranks: {} ranks cannot share the {} query and {} key/value heads of an "
      "attention layer evenly; {} can",
      context_ranks, student.num_heads, student.num_kv_heads, fmt::join(counts, ", "));
}

void run_distill(const DistillRecipe& recipe, const StageContext& context, const StageArgs& args) {
  const Model model = context.load_trained(args.inputs[0]);
  const DecoderWeights weights = with_logit_scale(model.weights, LogitScale{});
  const Loader loader = context.loader(context.data(), recipe, args.name);
  TrainJob job = context.job(args, recipe, loader, *model.store, model.config);
  job.count = count_weighted;
  job.objective = {{"cross_entropy_share", recipe.cross_entropy_share}};
  if (recipe.teacher_products == TeacherProducts::kFp8) job.objective["teacher_products"] = "fp8";
  job.forward_backward =
      kl_step(weights, with_products(recipe.teacher_products, context.training_teacher().weights),
              context.machine(), recipe.cross_entropy_share);
  const TrainResult result = halo::train(job);
  if (!context.takes_part()) return;
  const TextScores scores =
      held_out_scores(context, context.training_teacher().weights, weights, recipe.sequence_length);
  if (!context.ranks().is_first()) return;
  json::object figures = training_figures(recipe, result);
  figures["held_out_loss"] = mean_loss(scores).mean;
  finish_stage(
      args,
      {"held-out KL from the teacher, nats a token", mean_kl(scores).mean, Gate::Kind::kAtMost},
      figures);
}

std::vector<double> finetune_view(const FinetuneRecipe& recipe, const StageInputs& inputs) {
  const Loader loader = finetune_loader(recipe, inputs, "finetune");
  std::vector<double> shares = loader.token_share_in_view({0.25, 0.5, 0.75});
  if (shares[1] < 0.3 && inputs.data().long_context != LongContext::kConcat) {
    throw_error(
        "finetune: only {:.0f}% of the tokens have more than half of {} tokens in view; pack "
        "with --join-sources, use longer documents or a shorter finetune.sequence_length, or "
        "set data.long_context = \"concat\"",
        100 * shares[1], loader.plan().sequence_length);
  }
  return shares;
}

void run_finetune(const FinetuneRecipe& recipe, const StageContext& context,
                  const StageArgs& args) {
  const Model model = context.load_trained(args.inputs[0]);
  check_context_ranks(recipe.context_ranks, model.config);
  DecoderWeights weights = with_logit_scale(model.weights, LogitScale{});
  if (recipe.freeze_attention) weights = with_frozen_attention(std::move(weights));
  const auto held_out_loss = [&] {
    return mean_loss(held_out_scores(context, context.training_teacher().weights, weights,
                                     recipe.sequence_length))
        .mean;
  };
  const double before = context.takes_part() ? held_out_loss() : 0;
  const std::vector<double> in_view = finetune_view(recipe, context);
  say(fmt::format(
      "finetune: of its tokens {:.0f}%, {:.0f}% and {:.0f}% have more than 1/4, 1/2 and 3/4 of {} "
      "tokens in view",
      100 * in_view[0], 100 * in_view[1], 100 * in_view[2], recipe.sequence_length));
  const Loader loader = finetune_loader(recipe, context, args.name);
  TrainJob job = context.job(args, recipe, loader, *model.store, model.config);
  job.count = count_targets;
  if (recipe.freeze_attention) job.objective = {{"freeze_attention", true}};
  job.forward_backward =
      cross_entropy_step(weights, context.machine(), {&context.ranks(), recipe.context_ranks});
  const TrainResult result = halo::train(job);
  if (!context.takes_part()) return;
  const double after = held_out_loss();
  if (!context.ranks().is_first()) return;
  json::object figures = training_figures(recipe, result);
  figures["share_in_view"] = json::value_from(in_view);
  figures["held_out_loss_before"] = before;
  figures["held_out_loss"] = after;
  finish_stage(args,
               {"fall of the held-out loss, nats a token", before - after, Gate::Kind::kAbove},
               figures);
}

}  // namespace halo
