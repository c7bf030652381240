#include "halo/exchange/quantize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/exchange/inspect.h"
#include "halo/formats/weight_names.h"
#include "halo/model/decoder.h"
#include "halo/model/weight_values.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

constexpr double kMost = 127;  // so that -w is as exact as w

// The tensors of a model, the head apart from the embedding.
std::vector<TensorView> own_tensors(const WeightFiles& files, const ModelConfig& config,
                                    const std::string& from) {
  const std::vector<std::string> wrong = misfits(config, files.tensors());
  if (!wrong.empty()) throw_error("{}: {}", from, wrong.front());
  std::vector<TensorView> tensors = model_tensors(files.tensors(), config);
  for (const TensorView& tensor : tensors) check_values(tensor, from);
  if (config.tie_word_embeddings) {
    TensorView head = *std::ranges::find(tensors, kEmbeddingName, &TensorView::name);
    head.name = kHeadName;
    tensors.push_back(std::move(head));
  }
  return tensors;
}

// [O] fp32 of a matrix [O, I].
at::Tensor scales_of(const at::Tensor& matrix) {
  const at::Tensor most = matrix.abs().amax(1) / kMost;
  return at::where(most > 0, most, at::ones_like(most));
}

struct Plan {
  std::vector<TensorSpec> specs;                   // in the order of the file
  std::vector<const TensorView*> plain, matrices;  // as they are stored
  std::vector<at::Tensor> scales;                  // of the matrices
};

// Scales first and matrices last, so that all are aligned; matrices in the order of the parameters,
// so that those which are read as one lie end to end (docs/decisions/mapped-weights.md).
Plan plan_file(const std::vector<TensorView>& tensors, const ModelConfig& config) {
  Plan plan;
  std::vector<TensorSpec> scales, matrices;
  for (const ParameterSpec& spec : decoder_parameters(config)) {
    const TensorView& tensor = *std::ranges::find(tensors, spec.name, &TensorView::name);
    if (!spec.int8) {
      plan.specs.push_back({tensor.name, tensor.dtype, tensor.shape});
      plan.plain.push_back(&tensor);
      continue;
    }
    plan.matrices.push_back(&tensor);
    plan.scales.push_back(scales_of(to_tensor(tensor)));
    scales.push_back({tensor.name + std::string(kScaleSuffix), DType::kF32, {tensor.shape[0]}});
    matrices.push_back({tensor.name, DType::kI8, tensor.shape});
  }
  plan.specs.insert(plan.specs.begin(), scales.begin(), scales.end());
  plan.specs.insert(plan.specs.end(), matrices.begin(), matrices.end());
  return plan;
}

double sum_of_squares(const at::Tensor& x) {
  return x.to(at::kDouble).square().sum().item<double>();
}

}  // namespace

json::object quantize_model(const QuantizeArgs& args) {
  const at::NoGradGuard no_grad;
  ModelConfig config = read_model_config(args.model);
  const std::string from = args.model.string();
  if (config.int8_weights) throw_error("{}: its weights are int8 already", from);
  const WeightFiles files(args.model);
  const std::vector<TensorView> tensors = own_tensors(files, config, from);
  config.int8_weights = true;
  config.tie_word_embeddings = false;
  const Plan plan = plan_file(tensors, config);
  int64_t before = 0, after = 0;
  for (const TensorView& tensor : files.tensors()) before += std::ssize(tensor.bytes);
  for (const TensorSpec& spec : plan.specs) after += spec.num_bytes();
  double error = 0, all = 0;
  commit_new_directory(args.out, [&](const fs::path& out) {
    SafetensorsWriter writer(out / "model.safetensors", plan.specs);
    for (const at::Tensor& scales : plan.scales) writer.write(to_view("", scales).bytes);
    for (const TensorView* tensor : plan.plain) writer.write(tensor->bytes);
    for (size_t i = 0; i < plan.matrices.size(); ++i) {
      const at::Tensor matrix = to_tensor(*plan.matrices[i]);
      const at::Tensor scales = plan.scales[i].unsqueeze(1);
      const at::Tensor rounded = (matrix / scales).round().clamp(-kMost, kMost);
      error += sum_of_squares(matrix - rounded * scales);
      all += sum_of_squares(matrix);
      writer.write(to_view("", rounded.to(at::kChar)).bytes);
    }
    writer.commit();
    copy_side_files(args.model, out);
    const auto& embedding = *std::ranges::find(tensors, kEmbeddingName, &TensorView::name);
    config.other.erase("auto_map");  // names code that does not know int8
    write_model_config(out, config, embedding.dtype);
  });
  return {{"matrices", plan.matrices.size()},
          {"bytes_before", before},
          {"bytes_after", after},
          {"relative_error", std::sqrt(error / all)}};
}

}  // namespace halo
