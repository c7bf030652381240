#include "halo/exchange/hypenet_layouts.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "halo/base/check.h"

namespace halo {
namespace {

constexpr std::string_view kStage1Prefix = "model.";  // the module around the teacher
constexpr std::string_view kStudent = "student_model.", kTeacher = "teacher_model.";
constexpr std::string_view kLayers = "model.layers.", kMixer = ".self_attn.";
constexpr std::string_view kTeacherLayer = "teacher_layer.", kStudentLayer = "student_layer.";

// The layer of "model.layers.3.self_attn..."; none for other names.
std::optional<int64_t> mixer_layer(std::string_view name) {
  if (!name.starts_with(kLayers) || name.find(kMixer) == name.npos) return std::nullopt;
  int64_t layer = -1;
  const char* begin = name.data() + kLayers.size();
  const auto result = std::from_chars(begin, name.data() + name.size(), layer);
  if (result.ec != std::errc() || *result.ptr != '.' || layer < 0) return std::nullopt;
  return layer;
}

// Stage 1's name of a tensor in the plain form; none if the tensor is not the student's.
std::optional<std::string> stage1_name(std::string name, const ModelConfig& config,
                                       const std::string& from) {
  const auto refuse = [&] {
    throw_error("{}: tensor '{}' belongs to nothing in a checkpoint of stage 1", from, name);
  };
  if (!name.starts_with(kStage1Prefix)) refuse();
  const std::string plain = name.substr(kStage1Prefix.size());
  const std::optional<int64_t> layer = mixer_layer(plain);
  if (!layer) return plain;
  if (*layer >= config.num_layers) refuse();
  const size_t at = plain.find(kMixer) + kMixer.size();
  const bool is_teacher = plain.compare(at, kTeacherLayer.size(), kTeacherLayer) == 0;
  const bool is_student = plain.compare(at, kStudentLayer.size(), kStudentLayer) == 0;
  if (!is_teacher && !is_student) refuse();
  if (is_teacher != (config.mixer_types[*layer] == MixerType::kAttention)) return std::nullopt;
  const size_t length = is_teacher ? kTeacherLayer.size() : kStudentLayer.size();
  return plain.substr(0, at) + plain.substr(at + length);
}

}  // namespace

HypenetLayout find_layout(const std::vector<TensorView>& tensors) {
  const auto any = [&](std::string_view prefix) {
    return std::ranges::any_of(tensors,
                               [&](const TensorView& t) { return t.name.starts_with(prefix); });
  };
  if (any(kStudent)) return HypenetLayout::kStage2;
  return any("model.model.") ? HypenetLayout::kStage1 : HypenetLayout::kFinal;
}

std::vector<TensorView> student_tensors(const std::vector<TensorView>& tensors,
                                        HypenetLayout layout, const ModelConfig& config,
                                        const std::string& from) {
  if (layout == HypenetLayout::kFinal) return tensors;
  std::vector<TensorView> student;
  for (TensorView tensor : tensors) {
    if (layout == HypenetLayout::kStage1) {
      const auto name = stage1_name(tensor.name, config, from);
      if (!name) continue;
      tensor.name = *name;
    } else {
      if (tensor.name.starts_with(kTeacher)) continue;
      if (!tensor.name.starts_with(kStudent))
        throw_error("{}: tensor '{}' belongs to nothing in a checkpoint of stage 2", from,
                    tensor.name);
      tensor.name.erase(0, kStudent.size());
    }
    student.push_back(std::move(tensor));
  }
  return student;
}

}  // namespace halo
