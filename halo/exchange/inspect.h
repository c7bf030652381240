// What model directories hold, how two of them differ, and whether a conversion made one of the
// known mistakes (hypenet.md 2.5). Tensors are read in blocks, never whole.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "halo/base/json.h"
#include "halo/formats/model_config.h"
#include "halo/formats/safetensors.h"

namespace halo {

// Of the finite elements; all 0 where there is none.
struct TensorStatistics {
  int64_t numel = 0, non_finite = 0;
  double min = 0, max = 0, mean = 0, rms = 0;
};
TensorStatistics tensor_statistics(const TensorView& tensor);

// Where tensors do not fit a configuration (missing, left over, another shape, not floating), one
// sentence each.
std::vector<std::string> misfits(const ModelConfig& config, const std::vector<TensorView>& tensors);

// {model_type, parameters, layers, mixers ("A" attention, "-" lightning, one a layer),
//  weight_bytes, kv_bytes_per_token_bf16, state_bytes_per_sequence, misfits, config,
//  tensors: [{name, dtype, shape, min, max, mean, rms, non_finite}]}
json::object inspect_model(const std::filesystem::path& directory);

// {only_a, only_b: [name], equal: count,
//  different: [{name, shape, dtype: one or [a, b], changed: elements, max: of |a - b|,
//               relative: rms(a - b) / rms(a)}, or {name, shape: [a, b]}], by `relative`, largest
//               first
//  config: {key: [a, b]}}. Elements are compared as numbers, whatever their types.
json::object diff_models(const std::filesystem::path& a, const std::filesystem::path& b);

struct Finding {
  std::string check;                 // "norms", "head", "kv-heads", "gates", "biases", "tensors"
  std::string sentence;              // what is wrong and what it means
  std::vector<std::string> tensors;  // those it is about
};
// What a conversion of `teacher` into `student` got wrong; empty: nothing of what is looked for.
std::vector<Finding> audit_conversion(const std::filesystem::path& student,
                                      const std::filesystem::path& teacher);

}  // namespace halo
