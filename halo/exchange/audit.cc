// What a conversion can get wrong without failing (hypenet.md 2.5), seen in the weights it left.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/exchange/element_blocks.h"
#include "halo/exchange/inspect.h"
#include "halo/model/parameters.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

struct Checkpoint {
  explicit Checkpoint(const fs::path& directory)
      : directory(directory), config(read_model_config(directory)), files(directory) {
    if (config.int8_weights)
      throw_error("{}: its weights are int8; audit the model that it was made of",
                  directory.string());
  }

  fs::path directory;
  ModelConfig config;
  WeightFiles files;
};

void check_is_conversion(const Checkpoint& student, const Checkpoint& teacher) {
  const ModelConfig &s = student.config, &t = teacher.config;
  for (const auto& [key, mine, its] :
       {std::tuple{"num_hidden_layers", s.num_layers, t.num_layers},
        {"hidden_size", s.hidden_size, t.hidden_size},
        {"vocab_size", s.vocab_size, t.vocab_size},
        {"intermediate_size", s.intermediate_size, t.intermediate_size}}) {
    if (mine != its)
      throw_error("{} is no conversion of {}: '{}' is {}, the teacher's {}",
                  student.directory.string(), teacher.directory.string(), key, mine, its);
  }
}

std::string mixer_tensor(int64_t layer, const char* name) {
  return fmt::format("model.layers.{}.self_attn.{}", layer, name);
}

// Equal element by element once `b` is rounded to the type of `a`.
bool is_same(const TensorView& a, const TensorView& b) {
  if (a.shape != b.shape) return false;
  return at::equal(to_tensor(a), to_tensor(b).to(to_scalar_type(a.dtype)).to(at::kFloat));
}

bool is_all(const TensorView& tensor, double value) {
  bool all = true;
  for_each_block(tensor, [&](std::span<const double> block) {
    all = all && std::all_of(block.begin(), block.end(), [&](double x) { return x == value; });
  });
  return all;
}

void audit_norms(const Checkpoint& student, const Checkpoint& teacher,
                 std::vector<Finding>& findings) {
  std::vector<std::string> still;
  size_t norms = 0;
  for (const TensorView& tensor : student.files.tensors()) {
    if (!tensor.name.ends_with("norm.weight")) continue;
    const TensorView* its = teacher.files.find(tensor.name);
    const bool is_o_norm = tensor.name.ends_with(".o_norm.weight");
    if (its == nullptr && !is_o_norm) continue;
    ++norms;
    if (its == nullptr ? is_all(tensor, 1) : is_same(tensor, *its)) still.push_back(tensor.name);
  }
  if (still.empty()) return;
  findings.push_back(
      {"norms",
       fmt::format("{} of {} norm weights never moved from where the transfer put them: they were "
                   "not trained, or in bf16, where small updates round to nothing",
                   still.size(), norms),
       still});
}

void audit_head(const Checkpoint& student, const Checkpoint& teacher,
                std::vector<Finding>& findings) {
  const std::string head = "lm_head.weight", embedding = "model.embed_tokens.weight";
  const TensorView* its_head = teacher.files.find(head);
  const TensorView* its_embedding = teacher.files.find(embedding);
  if (teacher.config.tie_word_embeddings || its_head == nullptr || its_embedding == nullptr ||
      is_same(*its_head, *its_embedding))
    return;
  const TensorView* own_head = student.files.find(head);
  const TensorView* own_embedding = student.files.find(embedding);
  if (student.config.tie_word_embeddings || own_head == nullptr) {
    findings.push_back({"head",
                        "the teacher has a head of its own, the student's is tied to the "
                        "embedding: the teacher's head is lost",
                        {head}});
  } else if (own_embedding != nullptr && is_same(*own_head, *own_embedding)) {
    findings.push_back({"head",
                        "the student's head is its embedding, element by element, although the "
                        "teacher's head is another matrix: it was overwritten",
                        {head, embedding}});
  }
}

// Whether the heads [heads * d, D] are runs of `times` equal ones.
bool is_repeated(const TensorView& tensor, int64_t heads, int64_t times) {
  if (tensor.shape.empty() || tensor.shape[0] % heads != 0) return false;
  const size_t size = tensor.bytes.size() / static_cast<size_t>(heads);
  for (int64_t head = 0; head < heads; ++head) {
    const int64_t first = head - head % times;
    if (std::memcmp(tensor.bytes.data() + static_cast<size_t>(head) * size,
                    tensor.bytes.data() + static_cast<size_t>(first) * size, size) != 0)
      return false;
  }
  return true;
}

void audit_kv_heads(const Checkpoint& student, const Checkpoint& teacher,
                    std::vector<Finding>& findings) {
  const int64_t heads = student.config.lightning_kv_heads, its = teacher.config.num_kv_heads;
  if (heads <= its || heads % its != 0) return;
  std::vector<std::string> repeated;
  int64_t layers = 0, looked_at = 0;
  for (int64_t layer = 0; layer < student.config.num_layers; ++layer) {
    if (student.config.mixer_types[layer] != MixerType::kLightning) continue;
    ++looked_at;
    const size_t before = repeated.size();
    for (const char* name : {"k_proj.weight", "v_proj.weight"}) {
      const TensorView* tensor = student.files.find(mixer_tensor(layer, name));
      if (tensor != nullptr && is_repeated(*tensor, heads, heads / its))
        repeated.push_back(tensor->name);
    }
    layers += repeated.size() > before;
  }
  if (repeated.empty()) return;
  findings.push_back(
      {"kv-heads",
       fmt::format("{} of {} lightning layers still hold each key/value head of the teacher {} "
                   "times over: training has not told the copies apart",
                   layers, looked_at, heads / its),
       repeated});
}

void audit_gates(const Checkpoint& student, std::vector<Finding>& findings) {
  std::vector<std::string> shut;
  for (int64_t layer = 0; layer < student.config.num_layers; ++layer) {
    for (const char* name : {"o_gate.weight", "z_proj.weight"}) {
      const TensorView* tensor = student.files.find(mixer_tensor(layer, name));
      if (tensor != nullptr && is_all(*tensor, 0)) shut.push_back(tensor->name);
    }
  }
  if (shut.empty()) return;
  findings.push_back(
      {"gates",
       fmt::format("{} output gates are 0, as a transfer leaves them: they were not trained",
                   shut.size()),
       shut});
}

void audit_biases(const Checkpoint& student, const Checkpoint& teacher,
                  std::vector<Finding>& findings) {
  std::vector<std::string> lost;
  for (const TensorView& tensor : teacher.files.tensors()) {
    if (!tensor.name.ends_with("_proj.bias") || is_all(tensor, 0)) continue;
    const TensorView* own = student.files.find(tensor.name);
    if (own == nullptr || is_all(*own, 0)) lost.push_back(tensor.name);
  }
  if (lost.empty()) return;
  findings.push_back(
      {"biases",
       fmt::format("{} biases of the teacher's projections are missing or 0 in the student: they "
                   "were not carried over",
                   lost.size()),
       lost});
}

void audit_tensors(const Checkpoint& student, std::vector<Finding>& findings) {
  std::vector<std::string> broken;
  for (const TensorView& tensor : student.files.tensors())
    if (tensor_statistics(tensor).non_finite > 0) broken.push_back(tensor.name);
  if (!broken.empty())
    findings.push_back(
        {"tensors", fmt::format("{} tensors hold NaN or infinity", broken.size()), broken});
  for (const std::string& misfit : misfits(student.config, student.files.tensors()))
    findings.push_back({"tensors", misfit, {}});
}

}  // namespace

std::vector<Finding> audit_conversion(const fs::path& student_directory,
                                      const fs::path& teacher_directory) {
  const Checkpoint student(student_directory), teacher(teacher_directory);
  check_is_conversion(student, teacher);
  std::vector<Finding> findings;
  audit_norms(student, teacher, findings);
  audit_head(student, teacher, findings);
  audit_kv_heads(student, teacher, findings);
  audit_gates(student, findings);
  audit_biases(student, teacher, findings);
  audit_tensors(student, findings);
  return findings;
}

}  // namespace halo
