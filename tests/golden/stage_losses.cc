// Losses and gradients of stages 1 to 3 and ten AdamW steps of each, through the functions the
// stages themselves train with.
#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/adamw/adamw.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/stages/losses.h"
#include "halo/stages/transfer.h"
#include "halo/train/optimizer.h"
#include "tests/golden/forms.h"

namespace halo::golden {
namespace {

namespace fs = std::filesystem;

constexpr double kStepBound = 1e-4;   // relative, of losses and gradient norms
constexpr double kFinalBound = 1e-4;  // absolute: Adam makes steps of gradients that are only noise

// A student as a stage starts with it.
struct Student {
  std::shared_ptr<ParameterStore> store;
  ForwardBackward forward_backward;
  int64_t (*count)(const TrainBatch&);
};

// "model.model.layers.0.self_attn.student_layer.q_proj.weight", as stage 1's checkpoints say it,
// and the names of a whole model, which stay as they are.
std::string parameter_name(int stage, const std::string& name) {
  return stage == 1 ? without(without(name, "model."), "student_layer.") : name;
}

Student mixers_of_stage_1(const fs::path& folder, const Model& teacher, const Machine& machine) {
  const ModelConfig config =
      with_mixers(read_model_config(folder / "student"), MixerType::kLightning);
  auto store = std::make_shared<ParameterStore>(
      all_mixer_parameters(config), ParameterStore::Use::kTrained, at::kFloat, machine.device);
  const SafetensorsFile file(folder / "stage1-student" / "model.safetensors");
  std::vector<TensorView> tensors = file.tensors();
  for (TensorView& tensor : tensors) tensor.name = parameter_name(1, tensor.name);
  store->load(tensors, file.path().string());
  return {store, align_step(bind_mixers(config, *store), *store, teacher.weights, machine),
          count_tokens};
}

Student student_of(int stage, const fs::path& folder, const Model& teacher, Kernels kernels) {
  const Machine machine{.device = place().device, .kernels = kernels};
  if (stage == 1) return mixers_of_stage_1(folder, teacher, machine);
  const Model model =
      load_model(folder / "student", ParameterStore::Use::kTrained, at::kFloat, place().device);
  if (stage == 2) {
    return {model.store, kl_step(model.weights, teacher.weights, machine), count_tokens};
  }
  return {model.store, cross_entropy_step(model.weights, machine), count_targets};
}

// ids [B, T], every row a document that goes on behind its end.
TrainBatch train_batch(const at::Tensor& ids) {
  at::Tensor targets = at::full_like(ids, kIgnoreTarget);
  targets.slice(1, 0, -1).copy_(ids.slice(1, 1));
  return {ids.flatten(), row_offsets(ids), targets.flatten(), at::ones({ids.numel()}, at::kFloat),
          ids.size(0)};
}

at::Tensor losses_of(const Student& student, const TrainBatch& batch) {
  student.store->zero_grad();
  return student.forward_backward(batch, student.count(batch));
}

void check_gradients(int stage, const Student& student, const Expected& expected, Kernels kernels,
                     Findings& findings) {
  const std::string prefix = fmt::format("stage{}.", stage);
  const at::Tensor figures = losses_of(student, train_batch(expected.get("batch")));
  findings.tensor(in_form(prefix + "loss", kernels), figures[0], expected.get(prefix + "loss"));
  if (expected.contains(prefix + "layer_mse")) {
    findings.tensor(in_form(prefix + "layer_mse", kernels), figures.slice(0, 1),
                    expected.get(prefix + "layer_mse"));
  }
  findings.tensor(in_form(prefix + "grad_norm", kernels),
                  squared_norm(student.store->grad()).sqrt(), expected.get(prefix + "grad_norm"));
  for (const std::string& name : expected.names(prefix + "grad.")) {
    const std::string parameter = parameter_name(stage, without(name, prefix + "grad."));
    findings.tensor(in_form(name, kernels), student.store->view(student.store->grad(), parameter),
                    expected.get(name));
  }
}

void check_steps(int stage, const Student& student, const Expected& expected, Kernels kernels,
                 Findings& findings) {
  const std::string prefix = fmt::format("stage{}.", stage);
  const at::Tensor batches = expected.get("step_batches");
  const double rate = expected.get(prefix + "lr").item<double>();
  std::vector<at::Tensor> untrained, losses, norms;
  for (const at::Tensor& ids : batches.unbind()) {
    untrained.push_back(losses_of(student, train_batch(ids))[0]);
  }
  const TrainRecipe recipe{.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0, .clip = 1};
  Optimizer optimizer(*student.store, recipe);
  for (const at::Tensor& ids : batches.unbind()) {
    losses.push_back(losses_of(student, train_batch(ids))[0]);
    const auto step = static_cast<int64_t>(losses.size());
    norms.push_back(optimizer.step(step, rate, losses.back()).norm);
  }
  const std::pair<std::string, at::Tensor> series[] = {
      {"step_losses_without_training", at::stack(untrained)},
      {"step_losses", at::stack(losses)},
      {"step_grad_norms", at::stack(norms)}};
  for (const auto& [name, got] : series) {
    findings.relative(in_form(prefix + name, kernels), got, expected.get(prefix + name),
                      kStepBound);
  }
  for (const std::string& name : expected.names(prefix + "final.")) {
    const std::string parameter = parameter_name(stage, without(name, prefix + "final."));
    findings.absolute(in_form(name, kernels), student.store->value(parameter), expected.get(name),
                      kFinalBound);
  }
}

}  // namespace

void check_stage_losses(const fs::path& folder, Findings& findings) {
  const Model teacher = load_teacher(folder);
  const Expected expected(folder / "expected.safetensors");
  for (const Kernels kernels : place().forms) {
    for (int stage = 1; stage <= 3; ++stage) {
      const Student student = student_of(stage, folder, teacher, kernels);
      check_gradients(stage, student, expected, kernels, findings);
      check_steps(stage, student, expected, kernels, findings);
    }
  }
  expected.note_rest(findings);
}

}  // namespace halo::golden
