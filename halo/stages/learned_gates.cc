#include "halo/stages/learned_gates.h"

#include <cmath>

#include "ATen/ATen.h"
#include "halo/runtime/deal.h"
#include "halo/stages/losses.h"

namespace halo {
namespace {

// The gates' logits: fp32 whatever the models are in.
constexpr const char* kGates = "gates";
// A gate goes from even odds to 0.99 in some ninety steps of one sign.
constexpr double kLearningRate = 0.05;
constexpr int64_t kRowsPerStep = 2;

std::vector<double> numbers_of(const at::Tensor& x) {
  const at::Tensor host = x.to(at::kCPU, at::kDouble).contiguous();
  const double* data = host.const_data_ptr<double>();
  return {data, data + host.numel()};
}

// A row of a batch, as a batch.
TrainBatch row_of(const TrainBatch& batch, int64_t row) {
  const int64_t length = batch.tokens.size(0) / batch.rows, begin = row * length;
  const auto own = [&](const at::Tensor& x) { return x.narrow(0, begin, length); };
  return {own(batch.tokens), offsets_within(batch.offsets, begin, length), own(batch.targets),
          own(batch.token_weights), 1};
}

// The training of gates, which the first rank drives: it tells the others each step, and all of
// them deal its rows, whose gradients are added in their order, however many ranks there are. The
// others need no state.
class DealtSteps {
 public:
  // `step` adds to the gradient of the gates, the one parameter of `store`. All must outlive this.
  DealtSteps(const ForwardBackward& step, ParameterStore& store, Communicator& ranks)
      : step_(step), store_(store), ranks_(ranks) {}

  // By the first rank: a step of all, as ForwardBackward.
  at::Tensor lead(const TrainBatch& batch, int64_t step_count) {
    Packer packed;
    packed.add(step_count).add(batch.rows).add(numbers_of(store_.value(kGates)));
    packed.add(std::ssize(batch.offsets));
    for (const int64_t offset : batch.offsets) packed.add(offset);
    for (const at::Tensor& x : {batch.tokens, batch.targets, batch.token_weights}) {
      packed.add(numbers_of(x));
    }
    say(packed.bytes());
    return run(batch, step_count);
  }
  // By the first rank: the others' follow() returns.
  void end() { say(""); }

  // By another rank: takes part in steps until the last one.
  void follow() {
    for (;;) {
      const std::string said = say("");
      if (said.empty()) break;
      Unpacker packed(said);
      TrainBatch batch;
      const int64_t step_count = packed.integer();
      batch.rows = packed.integer();
      set_gates(packed.numbers());
      batch.offsets.resize(packed.integer());
      for (int64_t& offset : batch.offsets) offset = packed.integer();
      batch.tokens = at::tensor(packed.numbers(), at::kDouble).to(at::kLong);
      batch.targets = at::tensor(packed.numbers(), at::kDouble).to(at::kLong);
      batch.token_weights = at::tensor(packed.numbers(), at::kDouble).to(at::kFloat);
      run(batch, step_count);
    }
  }

 private:
  // What the first rank says, of any size.
  std::string say(const std::string& bytes) {
    return deal(ranks_, 1, [&](int64_t) { return bytes; }).front();
  }

  void set_gates(const std::vector<double>& values) {
    at::NoGradGuard no_grad;
    store_.value(kGates).copy_(at::tensor(values, at::kDouble));
  }

  at::Tensor run(const TrainBatch& batch, int64_t step_count) {
    at::Tensor grad = store_.grad();
    const at::Tensor before = grad.clone();
    const std::vector<std::string> rows = deal(ranks_, batch.rows, [&](int64_t row) {
      grad.zero_();
      const at::Tensor figures = step_(row_of(batch, row), step_count);
      return Packer().add(numbers_of(figures)).add(numbers_of(grad)).bytes();
    });
    grad.copy_(before);
    at::Tensor figures;
    for (const std::string& row : rows) {
      Unpacker packed(row);
      const at::Tensor own = at::tensor(packed.numbers(), at::kDouble);
      figures = figures.defined() ? figures + own : own;
      grad.add_(at::tensor(packed.numbers(), at::kDouble).to(grad.options()));
    }
    return figures.to(grad.device());
  }

  const ForwardBackward& step_;
  ParameterStore& store_;
  Communicator& ranks_;
};

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
  const ForwardBackward step =
      gate_step(with_logit_scale(candidates.attention(), LogitScale{}), candidates.aligned(),
                context.teacher().weights, store.weight(kGates), keep, context.machine());
  DealtSteps steps(step, store, context.ranks());
  if (!context.ranks().is_first()) {
    steps.follow();
  } else {
    const DataRecipe data = gate_data(context);
    const TrainRecipe train = gate_training(recipe, context);
    const Loader loader = context.loader(data, train, args.name);
    TrainJob job = context.job(args, train, loader, store, teacher);
    job.title = "select: gates";
    job.directory = args.out / kGates;
    job.data_id = data_hash(data);
    job.forward_backward = [&](const TrainBatch& batch, int64_t step_count) {
      return steps.lead(batch, step_count);
    };
    for (int64_t layer = 0; layer < layers; ++layer) {
      job.extra_metrics.push_back(fmt::format("layer_{}", layer));
    }
    job.model = {.write_side_files = [](const fs::path&) {}};  // the gates themselves are all
    halo::train(job);
    steps.end();
  }
  const std::vector<std::string> said = deal(context.ranks(), 1, [&](int64_t) {
    at::NoGradGuard no_grad;
    return Packer().add(numbers_of(store.value(kGates).sigmoid())).bytes();
  });
  return Unpacker(said.front()).numbers();
}

}  // namespace halo
