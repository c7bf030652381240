#include "halo/stages/learned_gates.h"

#include <cmath>

#include "ATen/ATen.h"
#include "halo/stages/losses.h"

namespace halo {
namespace {

// The gates' logits: fp32 whatever the models are in.
constexpr const char* kGates = "gates";
// A gate goes from even odds to 0.99 in some ninety steps of one sign.
constexpr double kLearningRate = 0.05;
constexpr int64_t kRowsPerStep = 2;

std::vector<double> values_of(const ParameterStore& store) {
  at::NoGradGuard no_grad;
  const at::Tensor gates = store.value(kGates).sigmoid().to(at::kCPU, at::kDouble);
  const double* data = gates.const_data_ptr<double>();
  return {data, data + gates.numel()};
}

}  // namespace

DataRecipe gate_data(const StageInputs& inputs) {
  DataRecipe data = inputs.data();
  data.needle_share = 1;
  data.answer_weight = 1;
  return data;
}

TrainRecipe gate_training(const SelectRecipe& recipe, const StageInputs& inputs) {
  TrainRecipe train;
  train.tokens = recipe.gate_tokens;
  train.sequence_length = inputs.row_length();
  train.tokens_per_step = kRowsPerStep * train.sequence_length;
  train.micro_batch_rows = kRowsPerStep;
  train.learning_rate = kLearningRate;
  train.schedule = RateCurve::kConstant;
  train.warmup_steps = 0;
  train.diverged_factor = 0;  // its gradient grows while a gate passes the steep part
  return train;
}

std::vector<double> learn_gates(const SelectRecipe& recipe, const Candidates& candidates,
                                const StageContext& context, int64_t keep, const StageArgs& args) {
  at::AutoGradMode with_gradients(true);
  const ModelConfig& teacher = context.teacher().config;
  const int64_t layers = teacher.num_layers;
  if (keep == layers) return std::vector<double>(static_cast<size_t>(layers), 1);
  ParameterStore store({{kGates, {layers}}}, ParameterStore::Use::kTrained, at::kFloat,
                       context.machine().device);
  {
    at::NoGradGuard no_grad;
    store.value(kGates).fill_(std::log(double(keep) / double(layers - keep)));
  }
  const DataRecipe data = gate_data(context);
  const TrainRecipe train = gate_training(recipe, context);
  const Loader loader = context.loader(data, train, args.name);
  TrainJob job = context.job(args, train, loader, store, teacher);
  job.title = "select: gates";
  job.directory = args.out / kGates;
  job.data_id = data_hash(data);
  job.forward_backward =
      gate_step(with_logit_scale(candidates.attention(), LogitScale{}), candidates.aligned(),
                context.teacher().weights, store.weight(kGates), keep, context.machine());
  for (int64_t layer = 0; layer < layers; ++layer) {
    job.extra_metrics.push_back(fmt::format("layer_{}", layer));
  }
  job.model = {.write_side_files = [](const fs::path&) {}};  // the gates themselves are all
  halo::train(job);
  return values_of(store);
}

}  // namespace halo
