#include "halo/stages/on_policy.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/base/random.h"
#include "halo/data/pack.h"
#include "halo/engine/draft.h"
#include "halo/engine/generate.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/model/layer_sharing.h"
#include "halo/stages/training_stage.h"

namespace halo {
namespace {

constexpr int64_t kHeldOutPrompts = 32;

PromptPlan prompt_plan(const OnPolicyRecipe& recipe) {
  return {recipe.prompt_tokens, recipe.sequence_length - 1};
}

// The recipe's texts without what does not come into prompts.
DataRecipe texts_of(const DataRecipe& data) {
  DataRecipe texts;
  texts.shards = data.shards;
  texts.weights = data.weights;
  return texts;
}

WritingPlan writing_plan(const OnPolicyRecipe& recipe, const StageInputs& inputs,
                         const std::string& purpose) {
  const fs::path tokenizer = inputs.teacher_directory() / "tokenizer.json";
  WritingPlan plan;
  plan.length = recipe.sequence_length;
  plan.ends = read_end_tokens(inputs.teacher_directory(), inputs.teacher_config());
  plan.ends.push_back(inputs.tokenizer().document_end(inputs.data().document_end));
  // Another document would begin.
  if (const auto begin = document_begin(inputs.tokenizer(), tokenizer)) plan.ends.push_back(*begin);
  plan.seed = static_cast<int64_t>(Random(inputs.seed(), purpose).bits(0) >> 1);
  return plan;
}

// Memory for that many texts at a time, and no more: what a step computes does not depend on what
// else is in memory.
SchedulerOptions scheduler_for(const DecoderWeights& student, const Machine& machine,
                               int64_t length, int64_t texts) {
  SchedulerOptions options = scheduler_options(machine);
  options.context = length;
  options.reuse_prefixes = false;
  options.max_running = std::min(texts, kTextsAtATime);
  const StateBytes bytes = state_bytes(student, options.block_size, options.kv_type);
  const int64_t blocks = (length + options.block_size - 1) / options.block_size;
  // Half of it is for states.
  options.memory_bytes =
      2 * (options.max_running + kMostDrafting) * (bytes.slot + blocks * bytes.block);
  return options;
}

std::vector<int64_t> piece(const TrainBatch& batch, size_t index) {
  const int64_t* tokens = batch.tokens.const_data_ptr<int64_t>();
  return {tokens + batch.offsets[index], tokens + batch.offsets[index + 1]};
}

// Texts one after another, each behind its prompt.
class Writings {
 public:
  void add(const std::vector<int64_t>& prompt, const Answer& answer) {
    tokens_.insert(tokens_.end(), prompt.begin(), prompt.end());
    tokens_.insert(tokens_.end(), answer.tokens.begin(), answer.tokens.end());
    if (answer.finish.end_token) tokens_.push_back(*answer.finish.end_token);
    targets_.resize(tokens_.size(), kIgnoreTarget);
    weights_.resize(tokens_.size(), 0);
    const auto first = offsets_.back() + std::ssize(prompt) - 1;
    for (int64_t t = first; t + 1 < std::ssize(tokens_); ++t) {
      targets_[t] = tokens_[t + 1];
      weights_[t] = 1;
    }
    offsets_.push_back(std::ssize(tokens_));
  }

  // Up to a multiple of `length`.
  void fill_up(int64_t length) {
    const int64_t whole = (std::ssize(tokens_) + length - 1) / length * length;
    if (whole == std::ssize(tokens_)) return;
    tokens_.resize(whole, 0);
    targets_.resize(whole, kIgnoreTarget);
    weights_.resize(whole, 0);
    offsets_.push_back(whole);
  }

  TrainBatch batch(int64_t rows) const {
    TrainBatch out;
    out.tokens = at::tensor(tokens_, at::kLong);
    out.targets = at::tensor(targets_, at::kLong);
    out.token_weights = at::tensor(weights_, at::kFloat);
    out.offsets = offsets_;
    out.rows = rows;
    return out;
  }

 private:
  std::vector<int64_t> tokens_, targets_, offsets_ = {0};
  std::vector<float> weights_;
};

// The model as it writes: without gradients, and whole on this rank, for texts end where each
// rank's own do. Where ranks have it between them all call.
DecoderWeights to_write_with(const Model& student) {
  at::NoGradGuard no_grad;
  DecoderWeights weights = student.weights;
  if (student.store->layers() && student.store->layers()->fetches()) {
    const ParameterStore& parts = *student.store;
    ParameterStore whole(parts.specs(), ParameterStore::Use::kFrozen, parts.compute_type(),
                         parts.device());
    parts.visit_values([&](const ParameterSpec& spec, const at::Tensor& value) {
      whole.value(spec.name).copy_(value);
    });
    weights = bind_decoder(student.config, whole);
  }
  weights.sharing = nullptr;
  return with_logit_scale(without_gradients(std::move(weights)), LogitScale{});
}

// The prompts as batches of `rows` each.
std::vector<TrainBatch> to_batches(const std::vector<std::vector<int64_t>>& prompts, int64_t rows) {
  std::vector<TrainBatch> batches;
  for (const std::vector<int64_t>& prompt : prompts) {
    if (batches.empty() || batches.back().rows == rows) {
      batches.emplace_back().offsets = {0};
      batches.back().tokens = at::empty({0}, at::kLong);
    }
    TrainBatch& batch = batches.back();
    batch.tokens = at::cat({batch.tokens, at::tensor(prompt, at::kLong)});
    batch.offsets.push_back(batch.tokens.numel());
    ++batch.rows;
  }
  return batches;
}

// Nats a token, of what the student writes behind the prompts.
double divergence_of(const Model& student, const OnPolicyRecipe& recipe,
                     const StageContext& context,
                     const std::vector<std::vector<int64_t>>& prompts) {
  at::NoGradGuard no_grad;
  const Progress phase("what the student writes behind held-out text");
  std::vector<TrainBatch> batches = to_batches(prompts, recipe.micro_batch_rows);
  const DecoderWeights judged = to_write_with(student);
  write_on(judged, context.machine(), writing_plan(recipe, context, "on-policy held-out"), batches);
  const DecoderWeights& teacher = context.training_teacher().weights;
  double sum = 0;
  int64_t count = 0;
  for (const TrainBatch& written : batches) {
    const Batch batch = to_batch(written, context.machine());
    const at::Tensor hidden = decode(judged, batch), wanted = decode(teacher, batch);
    sum += summed_divergence(recipe.divergence, hidden, judged.head, wanted, teacher.head.value,
                             to_device(written.token_weights, context.machine().device))
               .item<double>();
    count += count_weighted(written);
  }
  return sum / static_cast<double>(count);
}

}  // namespace

OnPolicyRecipe::OnPolicyRecipe() {
  tokens = 0;
  sequence_length = 512;
  tokens_per_step = 49'152;
  learning_rate = 1e-5;
  schedule = RateCurve::kConstant;
  warmup_steps = 10;
}

void check_recipe(const OnPolicyRecipe& recipe) {
  if (recipe.prompt_tokens >= recipe.sequence_length) {
    throw_error(
        "on_policy.prompt_tokens: {} leave no room to write in the {} tokens of a text "
        "(on_policy.sequence_length)",
        recipe.prompt_tokens, recipe.sequence_length);
  }
  check_frozen("on_policy", recipe.freeze_attention, recipe);
}

Prompts training_prompts(const OnPolicyRecipe& recipe, const StageInputs& inputs) {
  return {texts_of(inputs.data()), inputs.tokenizer_hash(), prompt_plan(recipe),
          recipe.rows_per_step(), Random(inputs.seed(), "on-policy").bits(1)};
}

std::vector<std::vector<int64_t>> held_out_prompts(const OnPolicyRecipe& recipe,
                                                   const StageInputs& inputs) {
  const TokenShard& shard = inputs.held_out();
  const TokenRange range = text_range(shard, TextPart::kSearch);
  int64_t documents = 0;
  while (documents < shard.num_documents() && shard.document_end(documents) <= range.end) {
    ++documents;
  }
  // One that is longer than the half is begun all the same.
  auto prompts =
      prompts_of(shard, 0, std::max<int64_t>(1, documents), kHeldOutPrompts, prompt_plan(recipe));
  if (prompts.empty()) {
    throw_error("eval.held_out: {} has no document that the student could go on with",
                shard.path().string());
  }
  return prompts;
}

void write_on(const DecoderWeights& student, const Machine& machine, const WritingPlan& plan,
              std::vector<TrainBatch>& batches) {
  at::NoGradGuard no_grad;
  std::vector<Request> requests;
  for (const TrainBatch& batch : batches) {
    for (size_t i = 0; i + 1 < batch.offsets.size(); ++i) {
      Request& request = requests.emplace_back();
      request.prompt = piece(batch, i);
      request.max_tokens = plan.length - std::ssize(request.prompt);
      request.sample.temperature = 1;
      request.seed = plan.seed;
      request.stream = plan.stream + std::ssize(requests) - 1;
      request.stop_ids = plan.ends;
    }
  }
  // New at every step: what it makes of the weights it makes once.
  Scheduler scheduler(std::make_shared<const DecoderWeights>(student),
                      scheduler_for(student, machine, plan.length, std::ssize(requests)));
  const std::vector<Answer> answers = answer(scheduler, requests);
  size_t next = 0;
  for (TrainBatch& batch : batches) {
    Writings texts_of_batch;
    for (size_t i = 0; i + 1 < batch.offsets.size(); ++i, ++next) {
      texts_of_batch.add(requests[next].prompt, answers[next]);
    }
    if (machine.device.is_cuda()) texts_of_batch.fill_up(plan.length);
    batch = texts_of_batch.batch(batch.rows);
  }
}

void run_on_policy(const OnPolicyRecipe& recipe, const StageContext& context,
                   const StageArgs& args) {
  const Model model = context.load_trained(args.inputs[0]);
  DecoderWeights weights = with_logit_scale(model.weights, LogitScale{});
  if (recipe.freeze_attention) weights = with_frozen_attention(std::move(weights));
  const std::vector<std::vector<int64_t>> held_out = held_out_prompts(recipe, context);
  const auto divergence = [&] { return divergence_of(model, recipe, context, held_out); };
  const double before = context.takes_part() ? divergence() : 0;

  const Prompts prompts = training_prompts(recipe, context);
  const auto data = [&](int64_t step, int64_t row, int64_t rows) {
    return prompts.step(step, row, rows);
  };
  TrainJob job = context.job(args, recipe, data, *model.store, model.config);
  job.data_id = data_hash(texts_of(context.data()));
  job.objective = {{"prompt_tokens", recipe.prompt_tokens},
                   {"divergence", word_of(kDivergences, recipe.divergence)},
                   {"freeze_attention", recipe.freeze_attention}};
  job.complete = [&](int64_t step, int64_t first_row, std::vector<TrainBatch>& batches) {
    WritingPlan plan = writing_plan(recipe, context, args.name);
    plan.stream = step * recipe.rows_per_step() + first_row;
    write_on(to_write_with(model), context.machine(), plan, batches);
  };
  job.count = count_weighted;
  job.forward_backward = on_policy_step(weights, context.training_teacher().weights,
                                        context.machine(), recipe.divergence);
  job.extra_metrics = {"written"};
  const TrainResult result = halo::train(job);
  if (!context.takes_part()) return;
  const double after = divergence();
  const TextScores scores =
      held_out_scores(context, context.training_teacher().weights, weights, recipe.sequence_length);
  if (!context.ranks().is_first()) return;
  json::object figures = training_figures(recipe, result);
  figures["divergence"] = word_of(kDivergences, recipe.divergence);
  figures["written_kl_before"] = before;
  figures["written_kl"] = after;
  figures["held_out_kl"] = mean_kl(scores).mean;
  figures["held_out_loss"] = mean_loss(scores).mean;
  finish_stage(
      args,
      {"fall of the divergence from the teacher on what the student writes behind held-out "
       "text, nats a token",
       before - after, Gate::Kind::kAbove},
      figures);
}

}  // namespace halo
