// Stage 0: what the teacher determines of the official stage-1 and stage-2 checkpoints must be what
// our transfer makes, and the hybrid that they describe must give its logits; what our own starts
// measure must be what the fixture measured.
#include "halo/stages/transfer.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/exchange/hypenet_layouts.h"
#include "tests/golden/forms.h"

namespace halo::golden {
namespace {

namespace fs = std::filesystem;

ParameterStore frozen_store(const ModelConfig& config) {
  return {decoder_parameters(config), ParameterStore::Use::kFrozen, at::kFloat, at::kCPU};
}

ParameterStore transferred(const Model& teacher, const ModelConfig& config) {
  ParameterStore store = frozen_store(config);
  transfer(teacher, config, store, {.init = TransferInit::kRandom});
  return store;
}

// The tensors that tensors.json names, bit for bit.
void check_determined(const json::array& names, const SafetensorsFile& file, const Model& teacher,
                      const ParameterStore& student, Findings& findings) {
  for (const json::value& entry : names) {
    const std::string name = json::value_to<std::string>(entry);
    const bool of_teacher =
        name.starts_with("teacher_model.") || name.find(".teacher_layer.") != std::string::npos;
    // "student_model." of stage 2; "model." of stage 1's module around the teacher.
    const std::string plain =
        without(without(name.substr(name.find('.') + 1), "teacher_layer."), "student_layer.");
    const at::Tensor got = (of_teacher ? *teacher.store : student).value(plain);
    findings.absolute(name, got, to_tensor(file.get(name)), 0);
  }
}

// The hybrid as stage 1's file holds it; its gates are drawn later, so they come from stage 2's.
std::vector<TensorView> assemble(const ModelConfig& config, const SafetensorsFile& stage1,
                                 const SafetensorsFile& stage2) {
  std::vector<TensorView> tensors =
      student_tensors(stage1.tensors(), HypenetLayout::kStage1, config, stage1.path().string());
  for (const ParameterSpec& spec : decoder_parameters(config)) {
    if (!spec.name.ends_with("o_gate.weight")) continue;
    tensors.push_back(stage2.get("student_model." + spec.name));
    tensors.back().name = spec.name;
  }
  return tensors;
}

// What `match` and `lsq` measure on the folder's tokens, if it says so.
void check_starts(const Model& teacher, const ModelConfig& config, const Expected& expected,
                  Findings& findings) {
  for (const auto& [prefix, init] :
       {std::pair("match.", TransferInit::kMatch), {"lsq.", TransferInit::kLsq}}) {
    const std::vector<std::string> names = expected.names(prefix);
    if (names.empty()) continue;
    const at::Tensor ids = expected.get("input_ids");
    ParameterStore store = frozen_store(config);
    transfer(
        teacher, config, store,
        {.init = init, .calibration = {make_batch(ids.flatten(), row_offsets(ids), at::kCPU)}});
    for (const std::string& name : names) {
      findings.tensor(name, store.value(without(name, prefix)), expected.get(name));
    }
  }
}

}  // namespace

void check_transfer(const fs::path& folder, Findings& findings) {
  at::NoGradGuard no_grad;
  const Model teacher = load_teacher(folder);
  const ModelConfig config = read_model_config(folder);
  const SafetensorsFile stage1(folder / "stage1" / "model.safetensors");
  const SafetensorsFile stage2(folder / "stage2" / "model.safetensors");

  const std::string list = (folder / "tensors.json").string();
  const json::object names = read_json(list).as_object();
  check_determined(json_get<json::array>(names, "stage1_deterministic", list), stage1, teacher,
                   transferred(teacher, with_mixers(config, MixerType::kLightning)), findings);
  check_determined(json_get<json::array>(names, "stage2_deterministic", list), stage2, teacher,
                   transferred(teacher, config), findings);

  const Expected expected(folder / "expected.safetensors");
  check_starts(teacher, with_mixers(config, MixerType::kLightning), expected, findings);
  const at::Tensor ids = expected.get("input_ids"), want = expected.get("stage2_student_logits");
  const std::pair<std::string, std::vector<TensorView>> hybrids[] = {
      {"logits from stage 1", assemble(config, stage1, stage2)},
      {"logits from stage 2",
       student_tensors(stage2.tensors(), HypenetLayout::kStage2, config, stage2.path().string())}};
  for (const auto& [what, tensors] : hybrids) {
    ParameterStore store = frozen_store(config);
    store.load(tensors, folder.string());
    for (const Kernels kernels : place().forms) {
      findings.tensor(in_form(what, kernels),
                      model_logits(bind_decoder(config, store), ids, {}, kernels), want);
    }
  }
  expected.note_rest(findings);
}

}  // namespace halo::golden
