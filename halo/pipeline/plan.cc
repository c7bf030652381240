#include "halo/pipeline/plan.h"

#include <algorithm>
#include <cmath>

#include "halo/base/check.h"
#include "halo/engine/draft.h"
#include "halo/runtime/ranks.h"
#include "halo/stages/align.h"
#include "halo/stages/choose_layers.h"
#include "halo/stages/selection_rule.h"
#include "halo/stages/transfer.h"

namespace halo {
namespace {

// Of a rank, for checkpoints that are written behind the training; on a GPU it is not its memory.
double checkpoint_copy_bytes(const TrainRecipe& train, const StageCost& cost, const RunRecipe& run,
                             int64_t compute_bytes) {
  if (!run.async_checkpoints || train.checkpoint_every == 0 || run.device != at::kCPU) return 0;
  const bool is_whole = run.shard == Shard::kNone && train.split == Split::kRows;
  const double ranks = is_whole ? 1 : double(num_ranks(run));
  return double(cost.trained.all) / ranks * double(12 + (compute_bytes < 4 ? compute_bytes : 0));
}

struct StageTime {
  double computing = 0, beside = 0, before = 0, hides = 0;
  // What goes on beside the computation takes time of its own only where it lasts longer.
  double all() const { return computing + std::max(0.0, beside - hides) + before; }
};

// Where ranks divide rows. `token`: token_seconds().
StageTime time_by_rows(const TrainRecipe& train, const StageCost& cost, const RunRecipe& run,
                       double token, const Links& links) {
  const auto compute_bytes = static_cast<int64_t>(c10::elementSize(compute_type(run)));
  const int64_t ranks = num_ranks(run), rows_of_rank = train.rows_per_rank(ranks);
  const int64_t rows = std::min(train.micro_batch_rows, rows_of_rank);
  const double tokens = double(train.steps() * train.tokens_per_step);
  const StepTalk talk =
      step_talk(links, ranks, run.shard, cost, compute_bytes, (rows_of_rank + rows - 1) / rows);
  StageTime time;
  time.computing = tokens * token / double(ranks);
  time.before =
      double(train.steps()) * talk.before +
      exchange_seconds(links, train.context_ranks,
                       tokens / double(ranks) * double(cost.exchanged_a_token * compute_bytes));
  time.beside = double(train.steps()) * talk.beside;
  time.hides = time.computing * talk.share_beside;
  return time;
}

// Where they divide layers: a rank that has one more than another is waited for.
StageTime time_by_layers(const TrainRecipe& train, const StageCost& cost, const RunRecipe& run,
                         double token, const Links& links) {
  const int64_t ranks = num_ranks(run), layers = (cost.num_layers + ranks - 1) / ranks;
  const double tokens = double(train.steps() * train.tokens_per_step);
  const double of_layers = cost.layer_flops_a_token / cost.flops_a_token;
  const double teacher = (1 - of_layers) / double(ranks);
  const double own = of_layers * double(layers) / double(cost.num_layers);
  StageTime time;
  time.computing = tokens * token * (teacher + own);
  time.before =
      exchange_seconds(links, ranks,
                       tokens / double(ranks) *
                           double(cost.passed_on_a_token * c10::elementSize(compute_type(run))));
  if (run.shard == Shard::kFull && links.in_node > 0) {  // the teacher, layer by layer
    const int64_t rows = std::min(train.micro_batch_rows, train.rows_per_step());
    const double batches = std::ceil(double(train.rows_per_step()) / double(rows));
    time.beside =
        double(train.steps()) * batches *
        gather_seconds(links, ranks, double(cost.frozen.all * c10::elementSize(compute_type(run))));
    time.hides = time.computing;
  }
  return time;
}

// Seconds by either split, where ranks can divide both; null where they cannot.
json::object split_seconds(TrainRecipe train, const StageCost& cost, const RunRecipe& run,
                           double token, const Links& links) {
  json::object out;
  for (const Word<Split>& split : kSplits) {
    train.split = split.value;
    json::value& seconds = out[split.word] = nullptr;
    try {
      check_recipe(train, std::string(split.word), num_ranks(run));
    } catch (const Error&) {
      continue;
    }
    seconds = (split.value == Split::kRows ? time_by_rows : time_by_layers)(train, cost, run, token,
                                                                            links)
                  .all();
  }
  return out;
}

json::object stage_plan(const std::string& name, const TrainRecipe& train, const StageCost& cost,
                        const RunRecipe& run, const Rates& rates, const Links& links) {
  const auto compute_bytes = static_cast<int64_t>(c10::elementSize(compute_type(run)));
  const int64_t ranks = num_ranks(run);
  const int64_t rows_of_rank = train.rows_per_rank(ranks);
  const int64_t rows = std::min(train.micro_batch_rows, rows_of_rank);
  const bool by_layers = train.split == Split::kLayers && ranks > 1;
  const auto time_of = [&](bool expected) {
    return (by_layers ? time_by_layers : time_by_rows)(train, cost, run,
                                                       token_seconds(cost, rates, expected), links);
  };
  const StageTime time = time_of(false);
  const int64_t tensors =
      by_layers ? peak_memory_by_layers(cost, rows * train.sequence_length, compute_bytes,
                                        run.shard, ranks)
                : peak_memory(cost, rows * train.sequence_length / train.context_ranks,
                              compute_bytes, run.device == at::kCPU, run.shard, ranks);
  const int64_t texts = std::min(rows_of_rank, kTextsAtATime) + kMostDrafting;
  int64_t written = texts * (cost.written_elements * compute_bytes + cost.written_bytes);
  // A rank that has a part of the weights gets all of them to write with.
  if (written > 0 && ranks > 1 && run.shard == Shard::kFull)
    written += cost.trained.all * compute_bytes;
  const int64_t memory =
      saturated(double(tensors + written) + checkpoint_copy_bytes(train, cost, run, compute_bytes));
  json::object out{
      {"stage", name},
      {"tokens", train.steps() * train.tokens_per_step},
      {"steps", train.steps()},
      {"flops", double(train.steps() * train.tokens_per_step) * cost.flops_a_token},
      {"seconds_at_least", time.all()},
      {"seconds", rates.memory_gbytes > 0 ? json::value(time_of(true).all()) : json::value()},
      {"communication_seconds", time.beside + time.before},
      {"memory_bytes", memory},
      {"memory_bytes_per_rank", memory},
      {"disk_bytes", saturated(double(train.keep_checkpoints) * double(cost.trained.all) *
                               double(12 + compute_bytes))}};
  if (ranks > 1 && cost.layer_flops_a_token > 0) {
    out["split"] = word_of<Split>(kSplits, train.split);
    out["split_seconds"] =
        split_seconds(train, cost, run, token_seconds(cost, rates, false), links);
  }
  return out;
}

// "align: ranks divide rows; 410 seconds by rows, 395 by layers: align.split = "layers" is faster".
std::string format_split(const json::object& stage) {
  const json::object& seconds = stage.at("split_seconds").as_object();
  const std::string section =
      section_of(find_stage(pipeline_stages(), std::string(stage.at("stage").as_string())));
  const auto said = [&](const char* split) {
    const json::value& of = seconds.at(split);
    return of.is_null() ? fmt::format("not possible by {}", split)
                        : fmt::format("{:.0f} seconds by {}", of.as_double(), split);
  };
  std::string faster;
  if (!seconds.at("rows").is_null() && !seconds.at("layers").is_null()) {
    const bool layers = seconds.at("layers").as_double() < seconds.at("rows").as_double();
    faster = fmt::format("; {}.split = \"{}\" is faster", section, layers ? "layers" : "rows");
  }
  return fmt::format("{}: ranks divide {}: {}, {}{}\n", section,
                     std::string(stage.at("split").as_string()), said("rows"), said("layers"),
                     faster);
}

StageCost stage_cost(const StageTraining& training, const ModelConfig& teacher,
                     const ModelConfig& hybrid, const Recipe& recipe) {
  const ModelConfig student = training.student(hybrid);
  StageCost cost = training.cost(teacher, student, training.recipe(recipe).sequence_length,
                                 recipe.run.activation_checkpointing);
  const auto compute_bytes = static_cast<int64_t>(c10::elementSize(compute_type(recipe.run)));
  if (recipe.run.device == at::kCPU || !recipe.run.deterministic || compute_bytes == 4)
    cost.attention_bytes = 0;
  // The rest of the student waits for its checkpoints, whole, in the memory of the host.
  if (!training.whole_student && recipe.run.device == at::kCPU)
    cost.kept_bytes += compute_bytes * num_parameters(decoder_parameters(student));
  // Beside the matrices that there are.
  const bool teaches_in_fp8 = recipe.distill.teacher_products == TeacherProducts::kFp8;
  if (teaches_in_fp8 && &training.recipe(recipe) == &recipe.distill)
    cost.kept_bytes += cost.frozen.all - cost.frozen.of_no_layer;
  return cost;
}

// Of a calibrated start: the first rank trains all mixers, beside a whole teacher and student.
json::object transfer_plan(const Recipe& recipe, const ModelConfig& teacher,
                           const ModelConfig& hybrid, const Rates& rates) {
  const TrainRecipe train =
      calibration_training(recipe.transfer, context_settings(recipe).row_length);
  RunRecipe alone = recipe.run;
  alone.ranks = 1;
  alone.shard = Shard::kNone;
  const ModelConfig student = with_mixers(hybrid, MixerType::kLightning);
  StageCost cost = align_cost(teacher, student, train.sequence_length);
  cost.kept_bytes = static_cast<int64_t>(c10::elementSize(compute_type(alone))) *
                    num_parameters(decoder_parameters(student));
  return stage_plan("transfer", train, cost, alone, rates, {});
}

}  // namespace

json::object plan(const Recipe& recipe, const Rates& of_device, const Links& links,
                  std::span<const Stage> all) {
  Rates rates = of_device;
  // What steps are expected to take was fitted to steps in bf16 with fixed decays.
  if (compute_type(recipe.run) != at::kBFloat16 || recipe.transfer.learned_decay)
    rates.memory_gbytes = 0;
  const ModelConfig teacher = read_model_config(recipe.teacher);
  const auto layers = static_cast<size_t>(teacher.num_layers);
  const int64_t keep = num_layers_to_keep(recipe.select, teacher);
  std::vector<MixerType> mixers(layers, MixerType::kLightning);
  for (int64_t layer : even_layers(teacher.num_layers, keep)) mixers[layer] = MixerType::kAttention;
  const ModelConfig hybrid = student_config(teacher, mixers, recipe.transfer.learned_decay);
  json::array stages;
  for (const Stage& stage : all) {
    if (stage.name == "transfer" && trains_calibration(recipe.transfer)) {
      stages.push_back(transfer_plan(recipe, teacher, hybrid, rates));
    }
    if (!stage.training || !is_wanted(stage, recipe)) continue;
    stages.push_back(stage_plan(stage.name, stage.training->recipe(recipe),
                                stage_cost(*stage.training, teacher, hybrid, recipe), recipe.run,
                                rates, links));
  }
  double least = 0, expected = 0, disk = 0;
  int64_t memory = 0;
  for (const json::value& value : stages) {
    const json::object& stage = value.as_object();
    least += stage.at("seconds_at_least").to_number<double>();
    if (!stage.at("seconds").is_null()) expected += stage.at("seconds").as_double();
    memory = std::max(memory, stage.at("memory_bytes").to_number<int64_t>());
    disk += stage.at("disk_bytes").to_number<double>();
  }
  return {{"teacher_parameters", num_parameters(decoder_parameters(teacher))},
          {"student_parameters", num_parameters(decoder_parameters(hybrid))},
          {"attention_layers_kept", keep},
          {"device", word_of<at::DeviceType>(kDevices, recipe.run.device)},
          {"ranks", num_ranks(recipe.run)},
          {"shard", word_of<Shard>(kShards, recipe.run.shard)},
          {"matrix_gflops", rates.matrix_gflops},
          {"stages", stages},
          {"seconds_at_least", least},
          {"seconds", expected > 0 ? json::value(expected) : json::value()},
          {"gpu_hours", std::max(least, expected) / 3600 * double(num_ranks(recipe.run))},
          {"memory_bytes", memory},
          {"disk_bytes", saturated(disk)}};
}

namespace {

std::string expected_seconds(const json::object& of) {
  return of.at("seconds").is_null() ? "" : fmt::format("{:.0f}", of.at("seconds").as_double());
}

}  // namespace

std::string format_plan(const json::object& plan) {
  std::string out = fmt::format(
      "teacher {:.1f}M parameters, student {:.1f}M, {} attention layers kept\n"
      "{:<16} {:>14} {:>8} {:>11} {:>12} {:>10} {:>10} {:>10}\n",
      plan.at("teacher_parameters").to_number<double>() / 1e6,
      plan.at("student_parameters").to_number<double>() / 1e6,
      plan.at("attention_layers_kept").to_number<int64_t>(), "stage", "tokens", "steps", "TFLOP",
      "seconds >=", "seconds", "memory GiB", "disk GiB");
  const double gib = double(1 << 30);
  for (const json::value& value : plan.at("stages").as_array()) {
    const json::object& s = value.as_object();
    out += fmt::format("{:<16} {:>14} {:>8} {:>11.1f} {:>12.0f} {:>10} {:>10.2f} {:>10.2f}\n",
                       std::string(s.at("stage").as_string()), s.at("tokens").to_number<int64_t>(),
                       s.at("steps").to_number<int64_t>(), s.at("flops").to_number<double>() / 1e12,
                       s.at("seconds_at_least").to_number<double>(), expected_seconds(s),
                       s.at("memory_bytes").to_number<double>() / gib,
                       s.at("disk_bytes").to_number<double>() / gib);
  }
  const json::value& seconds =
      plan.at("seconds").is_null() ? plan.at("seconds_at_least") : plan.at("seconds");
  const int64_t ranks = plan.at("ranks").to_number<int64_t>();
  out += fmt::format(
      "{:<16} {:>48.0f} seconds at least at {:.0f} GFLOP/s of matrix products; {:.1f} hours",
      "in all", plan.at("seconds_at_least").to_number<double>(),
      plan.at("matrix_gflops").to_number<double>(), seconds.to_number<double>() / 3600);
  if (plan.at("device").as_string() == "cuda") {
    out += fmt::format(" on {}, {:.1f} GPU-hours",
                       ranks == 1 ? "one GPU" : fmt::format("{} GPUs", ranks),
                       plan.at("gpu_hours").to_number<double>());
  }
  out += "\n";
  if (ranks > 1) {
    out += fmt::format("{} ranks, run.shard = \"{}\"; memory is that of each\n", ranks,
                       std::string(plan.at("shard").as_string()));
    for (const json::value& stage : plan.at("stages").as_array()) {
      if (stage.as_object().contains("split")) out += format_split(stage.as_object());
    }
  }
  return out;
}

}  // namespace halo
