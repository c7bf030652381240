#include <algorithm>
#include <memory>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/base/random.h"
#include "halo/bench/bench.h"
#include "halo/bench/random_model.h"
#include "halo/bench/save_times.h"
#include "halo/bench/step_profile.h"
#include "halo/formats/safetensors.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/model/layer_sharing.h"
#include "halo/pipeline/stage.h"
#include "halo/runtime/device_event.h"
#include "halo/runtime/machine.h"
#include "halo/runtime/ranks.h"
#include "halo/stages/transfer.h"
#include "halo/train/optimizer.h"

namespace halo {
namespace {

at::Tensor batch_ids(const TrainBenchArgs& args, int64_t vocab_size, int64_t group) {
  const int64_t count = args.rows * args.sequence_length;
  if (!args.ids.empty()) {
    const SafetensorsFile file(args.ids);
    const at::Tensor ids = to_tensor(file.get("input_ids")).flatten();
    if (ids.numel() != count || ids.scalar_type() != at::kLong) {
      throw_error("{}: input_ids must be {} int64 (--rows by --sequence-length), got {} {}",
                  args.ids, count, ids.numel(), c10::toString(ids.scalar_type()));
    }
    if (ids.min().item<int64_t>() < 0 || ids.max().item<int64_t>() >= vocab_size) {
      throw_error("{}: input_ids must be of the vocabulary, 0 to {}", args.ids, vocab_size - 1);
    }
    return ids;
  }
  const Random random(static_cast<uint64_t>(args.run.seed + group), "bench.ids");
  at::Tensor ids = at::empty({count}, at::kLong);
  for (int64_t i = 0; i < count; ++i) ids.data_ptr<int64_t>()[i] = random.below(i, vocab_size);
  return ids;
}

// A stage as it trains: what it holds in memory, its step on a micro-batch, its arithmetic.
struct OpenStage {
  int64_t vocab_size = 0;
  std::shared_ptr<ParameterStore> trained, teacher;  // kept for `step`
  ForwardBackward step;
  StageCost cost;
};

Model open_teacher(const TrainBenchArgs& args, const ModelConfig& hybrid, const Machine& machine,
                   const Sharing& sharing) {
  if (args.config.empty() == args.teacher.empty()) {
    throw_error("bench train: stage {} takes --teacher beside --student, and not beside --config",
                args.stage);
  }
  return args.config.empty() ? load_model(args.teacher, ParameterStore::Use::kFrozen,
                                          machine.compute, machine.device, sharing)
                             : random_model(teacher_config_of(hybrid), ParameterStore::Use::kFrozen,
                                            machine, sharing);
}

OpenStage open_stage(const TrainBenchArgs& args, const Machine& machine, const Sharing& sharing,
                     const ContextGroup& group) {
  const StageTraining& training = *find_stage(pipeline_stages(), args.stage).training;
  if (args.config.empty() == args.student.empty()) {
    throw_error("bench train: give either --config or --student");
  }
  const ModelConfig hybrid =
      args.config.empty() ? read_model_config(args.student) : read_config_file(args.config);
  OpenStage stage;
  stage.vocab_size = hybrid.vocab_size;
  Model teacher;
  if (training.uses_teacher) teacher = open_teacher(args, hybrid, machine, sharing);
  stage.teacher = teacher.store;
  const ModelConfig student = training.student(hybrid);
  if (training.whole_student && args.config.empty()) {
    stage.trained = load_model(args.student, ParameterStore::Use::kTrained, machine.compute,
                               machine.device, sharing)
                        .store;
  } else {
    Sharing of_trained = sharing;
    of_trained.by_layer = args.split == Split::kLayers;
    stage.trained = std::make_shared<ParameterStore>(
        training.whole_student ? decoder_parameters(student) : all_mixer_parameters(student),
        ParameterStore::Use::kTrained, machine.compute, machine.device, of_trained);
    randomise(*stage.trained);
  }
  const DecoderWeights taught = training.uses_teacher
                                    ? with_products(args.teacher_products, teacher.weights)
                                    : DecoderWeights{};
  stage.step = training.step(student, *stage.trained, taught, machine, group);
  stage.cost = training.cost(teacher.config, student, args.sequence_length,
                             machine.activation_checkpointing);
  return stage;
}

TrainBatch make_rows(const TrainBenchArgs& args, int64_t vocab_size, int64_t group) {
  TrainBatch batch;
  batch.rows = args.rows;
  batch.tokens = batch_ids(args, vocab_size, group);
  batch.targets = batch.tokens.roll(-1);
  batch.token_weights = at::ones({batch.tokens.numel()});
  for (int64_t row = 0; row <= args.rows; ++row) {
    batch.offsets.push_back(row * args.sequence_length);
    if (row > 0) batch.targets[row * args.sequence_length - 1] = kIgnoreTarget;
  }
  return batch;
}

void check_groups(const TrainBenchArgs& args, int64_t ranks) {
  Recipe recipe;
  if (args.context_ranks > 1 && !settings_of(recipe).find(args.stage + ".context_ranks")) {
    throw_error("bench train: --context-ranks: ranks do not share rows in stage {}", args.stage);
  }
  if (args.split == Split::kLayers &&
      (!settings_of(recipe).find(section_of(find_stage(pipeline_stages(), args.stage)) +
                                 ".split") ||
       args.rows % ranks != 0)) {
    throw_error(
        "bench train: --split layers: is of stage 1, with a multiple of the {} ranks as --rows",
        ranks);
  }
  if (ranks % args.context_ranks != 0 || args.sequence_length % args.context_ranks != 0) {
    throw_error(
        "bench train: --context-ranks {} must divide the {} ranks and the {} tokens of a row",
        args.context_ranks, ranks, args.sequence_length);
  }
}

// The largest of what the ranks have.
int64_t most(Communicator& ranks, int64_t mine) {
  int64_t largest = 0;
  for (const std::string& theirs : ranks.exchange(fmt::format("{}", mine))) {
    largest = std::max<int64_t>(largest, std::stoll(theirs));
  }
  return largest;
}

}  // namespace

std::span<const Word<std::string>> trained_stages() {
  static const std::vector<Word<std::string>> words = [] {
    std::vector<Word<std::string>> out;
    for (const Stage& stage : pipeline_stages())
      if (stage.training) out.push_back({stage.name, stage.name});
    return out;
  }();
  return words;
}

json::object bench_train(const TrainBenchArgs& args, Communicator& ranks) {
  check_groups(args, ranks.size());
  const Machine machine = open_machine(run_of_rank(args.run, ranks));
  const double matrix_rate = measure_matrix_gflops(machine);
  at::manual_seed(static_cast<uint64_t>(args.run.seed));
  const OpenStage stage =
      open_stage(args, machine, {&ranks, args.run.shard}, {&ranks, args.context_ranks});
  const bool by_layers = args.split == Split::kLayers;
  const int64_t ranks_of_a_row = by_layers ? ranks.size() : args.context_ranks;
  const int64_t groups = ranks.size() / ranks_of_a_row;
  const TrainBatch batch = make_rows(args, stage.vocab_size, ranks.rank() / ranks_of_a_row);
  const TrainRecipe recipe;  // for the optimiser's settings
  Optimizer optimizer(*stage.trained, recipe);
  int64_t updates = 0;
  const auto run_step = [&](int64_t micro_batches, BackgroundSaves* saves = nullptr) {
    stage.trained->zero_grad();
    if (stage.trained->layers()) stage.trained->layers()->begin_step(micro_batches);
    at::Tensor loss;
    for (int64_t i = 0; i < micro_batches; ++i) {
      const int64_t count = groups * micro_batches * batch.tokens.numel();
      const at::Tensor part = stage.step(batch, count)[0];
      loss = loss.defined() ? loss + part : part;
    }
    loss = ranks.sum(loss.reshape({1}))[0];
    if (saves) saves->before_update();
    optimizer.step(++updates, 1e-4, loss);
    return loss;
  };
  json::array losses;
  for (int64_t i = 0; i < args.warmup; ++i) {
    losses.push_back(run_step(std::min<int64_t>(args.micro_batches, 2)).item<double>());
  }

  std::vector<at::Tensor> step_losses;
  std::vector<DeviceEvent> events{DeviceEvent(machine.device)};
  for (int64_t i = 0; i < args.steps; ++i) {
    step_losses.push_back(run_step(args.micro_batches));
    events.emplace_back(machine.device);
  }
  events.back().wait();
  std::vector<double> seconds;
  for (int64_t i = 0; i < args.steps; ++i) {
    losses.push_back(step_losses[i].item<double>());
    seconds.push_back(events[i + 1].seconds_since(events[i]));
  }

  const json::array times(seconds.begin(), seconds.end());
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size()) / 2,
                   seconds.end());
  const double median = seconds[seconds.size() / 2];
  const int64_t tokens = groups * args.micro_batches * batch.tokens.numel();
  const double flops = double(tokens) * stage.cost.flops_a_token;
  const auto compute_bytes = static_cast<int64_t>(c10::elementSize(machine.compute));
  json::object result{
      {"device", machine.device_name},
      {"stage", args.stage},
      {"ranks", ranks.size()},
      {"context_ranks", args.context_ranks},
      {"shard", word_of<Shard>(kShards, args.run.shard)},
      {"split", word_of<Split>(kSplits, args.split)},
      {"tokens_a_step", tokens},
      {"tokens_per_second", double(tokens) / median},
      {"seconds", times},
      {"loss", losses},
      {"flops", flops},
      {"matrix_gflops", matrix_rate},
      {"share_of_matrix_rate", flops / median / (matrix_rate * 1e9 * double(ranks.size()))},
      {"peak_memory_bytes", most(ranks, peak_memory_bytes(machine))},
      {"planned_memory_bytes",
       by_layers && ranks.size() > 1
           ? peak_memory_by_layers(stage.cost, batch.tokens.numel(), compute_bytes, args.run.shard,
                                   ranks.size())
           : peak_memory(stage.cost, batch.tokens.numel() / args.context_ranks, compute_bytes,
                         machine.device.is_cpu(), args.run.shard, ranks.size())}};
  if (machine.device.is_cuda()) {
    result["profile"] = profile_step([&] { run_step(args.micro_batches); });
  }
  if (!args.save_to.empty()) {
    result["saves"] = time_saves(args.save_to, *stage.trained, [&](BackgroundSaves* saves) {
      run_step(args.micro_batches, saves);
    });
  }
  return result;
}

}  // namespace halo
