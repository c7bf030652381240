#include "halo/stages/context.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/model/layer_sharing.h"
#include "halo/runtime/ranks.h"
#include "halo/stages/losses.h"
#include "halo/train/checkpoint.h"

namespace halo {

StageContext::StageContext(ContextSettings all, Communicator& ranks)
    : StageInputs(std::move(all)),
      ranks_(ranks),
      machine_(open_machine(run_of_rank(settings().run, ranks))) {
  if (!divides_weights()) teacher();
}

bool StageContext::takes_part() const {
  return ranks_.is_first() || divides_weights();
}

const Model& StageContext::teacher_with(const Sharing& sharing) const {
  const bool is_divided = sharing.ranks->size() > 1 && divides_weights();
  if (!teacher_ || teacher_is_divided_ != is_divided) {
    teacher_.reset();  // before there is another
    teacher_ = load_model(teacher_directory(), ParameterStore::Use::kFrozen, machine_.compute,
                          machine_.device, sharing);
    teacher_is_divided_ = is_divided;
  }
  return *teacher_;
}

const Model& StageContext::teacher() const {
  return teacher_with({});
}

// The first rank may have had it whole in between, and has fetched nothing of it yet.
const Model& StageContext::training_teacher() const {
  const Model& teacher = teacher_with(sharing());
  if (teacher.store->layers()) teacher.store->layers()->forget();
  return teacher;
}

TextBatches StageContext::held_out_batches(const HeldOutArgs& args, int64_t bucket_length) const {
  return {held_out_text(held_out(), args), bucket_length > 0 ? bucket_length : args.row_length,
          machine_.device, machine_.kernels};
}

std::vector<Batch> StageContext::calibration(const std::string& stage, int64_t tokens) const {
  const Progress phase("calibration text");
  DataRecipe text = data();
  text.needle_share = 0;
  const int64_t rows = std::max<int64_t>(1, std::min<int64_t>(4096, tokens) / row_length());
  const Loader loader(text, tokenizer(), tokenizer_hash(),
                      {row_length(), rows, Random(seed(), stage).bits(0)});
  std::vector<Batch> batches;
  for (int64_t done = 0; done < tokens; done += rows * row_length()) {
    batches.push_back(to_batch(loader.step(static_cast<int64_t>(batches.size())), machine_));
  }
  return batches;
}

TrainJob StageContext::job(const StageArgs& args, const TrainRecipe& train, const Loader& loader,
                           ParameterStore& store, const ModelConfig& config) const {
  const auto batches = [&loader](int64_t step, int64_t row, int64_t rows) {
    return loader.step(step, row, rows);
  };
  return job(args, train, batches, store, config);
}

TrainJob StageContext::job(const StageArgs& args, const TrainRecipe& train,
                           decltype(TrainJob::data) batches, ParameterStore& store,
                           const ModelConfig& config) const {
  TrainJob job;
  job.stage = job.title = args.name;
  job.directory = args.out;
  job.recipe = train;
  job.seed = seed();
  job.kernels = machine_.kernels;
  job.data_id = data_hash(data());
  job.store = &store;
  job.data = std::move(batches);
  job.count = count_tokens;
  job.async_checkpoints = settings().run.async_checkpoints;
  job.model.dtype = file_type();
  job.model.write_side_files = [this, config](const fs::path& directory) {
    write_model_config(directory, config, file_type());
    copy_side_files(teacher_directory(), directory);
  };
  return job;
}

Model StageContext::load(const fs::path& directory) const {
  return load_model(directory, ParameterStore::Use::kFrozen, machine_.compute, machine_.device);
}

Model StageContext::load_student(const fs::path& directory, at::Device device) const {
  check_student(directory);
  return load_model(directory, ParameterStore::Use::kFrozen, machine_.compute, device);
}

Model StageContext::load_trained(const fs::path& directory) const {
  check_student(directory);
  return load_model(directory, ParameterStore::Use::kTrained, machine_.compute, machine_.device,
                    sharing());
}

void StageContext::check_student(const fs::path& directory) const {
  const ModelConfig student = read_model_config(directory);
  if (!student.is_hypenet()) {
    throw_error("{}: is no hybrid, and so no student; give what a stage before left",
                directory.string());
  }
  const ModelConfig& teacher = teacher_config();
  const auto check = [&](const char* key, int64_t ours, int64_t theirs) {
    if (ours == theirs) return;
    throw_error("{}: is no student of {}: its {} is {}, the teacher's {}", directory.string(),
                teacher_directory().string(), key, ours, theirs);
  };
  check("num_hidden_layers", student.num_layers, teacher.num_layers);
  check("hidden_size", student.hidden_size, teacher.hidden_size);
  check("vocab_size", student.vocab_size, teacher.vocab_size);
}

void StageContext::save(const fs::path& directory, const ModelConfig& config,
                        const ParameterStore& store) const {
  save_model(directory, config, store, file_type());
  if (store.ranks().is_first()) copy_side_files(teacher_directory(), directory);
}

std::vector<double> even_depths(int64_t n) {
  std::vector<double> depths;
  for (int64_t i = 0; i < n; ++i) depths.push_back((double(i) + 0.5) / double(n));
  return depths;
}

fs::path stage_model(const fs::path& stage_directory) {
  const std::string stage = stage_directory.filename().string();
  if (!stage_finished(stage_directory)) {
    throw_error("{}: the stage is not finished; run `halo {} --run {}` first",
                stage_directory.string(), stage, stage_directory.parent_path().string());
  }
  const Checkpoints checkpoints(stage_directory, 2);
  const auto steps = checkpoints.steps();
  if (steps.empty()) {
    throw_error("{}: the stage is finished but its step-N folder is gone; run `halo {} --run {}`",
                stage_directory.string(), stage, stage_directory.parent_path().string());
  }
  // Stages that do not train write no state/; theirs is one renamed folder, whole or not there.
  if (fs::exists(checkpoints.path(steps.front()) / "state")) {
    checkpoints.verify(steps.front(), /*hashes=*/false);
  }
  return checkpoints.path(steps.front());
}

bool Gate::passed(double limit) const {
  switch (kind) {
    case Kind::kAtMost:
      return value <= limit;
    case Kind::kAtLeast:
      return value >= limit;
    case Kind::kAbove:
      return value > limit;
  }
  return false;
}

namespace {

// What to do where the gate was not passed; the command sets a limit 1 % beyond the value.
std::string gate_advice(const StageArgs& args, const Gate& gate) {
  const bool has_command = !args.gate_key.empty() && !args.again.empty();
  if (!has_command || !std::isfinite(gate.value)) return "";
  double limit =
      gate.value + (gate.kind == Gate::Kind::kAtMost ? 0.01 : -0.01) * std::abs(gate.value);
  if (gate.value == 0 && gate.kind == Gate::Kind::kAbove) limit = -0.001;
  return fmt::format(", or take it as it is: `{} --set {}={:.3g}`", args.again, args.gate_key,
                     limit);
}

}  // namespace

void finish_stage(const StageArgs& args, const Gate& gate, json::object figures) {
  const char* relation = gate.kind == Gate::Kind::kAtMost    ? "at most"
                         : gate.kind == Gate::Kind::kAtLeast ? "at least"
                                                             : "above";
  const bool passed = gate.passed(args.gate);
  say(fmt::format("{}: {}: {:.4g}, must be {} {:.4g}", args.name, gate.figure, gate.value, relation,
                  args.gate));
  json::object result{{"stage", args.name}};
  if (!args.loss.empty()) result["loss"] = {{"figure", args.loss}, {"unit", args.unit}};
  result["gate"] = {{"figure", gate.figure},
                    {"value", number_or_null(gate.value)},
                    {"must_be", relation},
                    {"limit", args.gate},
                    {"passed", passed}};
  for (auto& [key, value] : figures) result[key] = std::move(value);
  crash_point("stage.before_result");
  write_json(args.out / (passed ? "result.json" : "failed.json"), result);
  if (!passed) {
    throw GateFailed(
        fmt::format("{}: the gate is not passed: {} is {:.4g}, must be {} {:.4g} (figures in {}); "
                    "train longer or change its settings{}",
                    args.name, gate.figure, gate.value, relation, args.gate,
                    (args.out / "failed.json").string(), gate_advice(args, gate)));
  }
  fs::remove(args.out / "failed.json");
}

bool stage_finished(const fs::path& out) {
  return fs::exists(out / "result.json");
}

void restart_stage(const fs::path& out) {
  const fs::path old = out.string() + ".tmp";
  fs::remove_all(old);
  fs::rename(out, old);  // in one go, so that a kill leaves the stage finished or not begun
  fs::remove_all(old);
}

}  // namespace halo
