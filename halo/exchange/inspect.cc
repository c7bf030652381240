#include "halo/exchange/inspect.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "halo/base/check.h"
#include "halo/exchange/element_blocks.h"
#include "halo/formats/weight_names.h"
#include "halo/model/decoder.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

std::string strip_of(const ModelConfig& config) {
  std::string strip;
  for (const MixerType type : config.mixer_types)
    strip += type == MixerType::kAttention ? 'A' : '-';
  return strip;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

struct Difference {
  int64_t changed = 0;
  double max = 0, relative = 0;
};

Difference compare(const TensorView& a, const TensorView& b) {
  Difference out;
  double squares = 0, squares_a = 0;
  for_each_block_pair(a, b, [&](std::span<const double> x, std::span<const double> y) {
    for (size_t i = 0; i < x.size(); ++i) {
      squares_a += x[i] * x[i];
      if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
      ++out.changed;
      const double distance = std::abs(x[i] - y[i]);
      out.max = std::isfinite(distance) ? std::max(out.max, distance)
                                        : std::numeric_limits<double>::infinity();
      squares += distance * distance;
    }
  });
  if (out.changed > 0) out.relative = std::sqrt(squares / squares_a);
  return out;
}

json::value pair_or_one(std::string_view a, std::string_view b) {
  if (a == b) return json::value(a);
  return json::array{a, b};
}

json::object diff_configs(const ModelConfig& config_a, const ModelConfig& config_b) {
  const json::object a = model_config_to_json(config_a), b = model_config_to_json(config_b);
  json::object out;
  const auto value_in = [](const json::object& config, std::string_view key) {
    const json::value* value = config.if_contains(key);
    return value == nullptr ? json::value() : *value;  // null is Hugging Face's "not set"
  };
  for (const json::object* config : {&a, &b}) {
    for (const auto& [key, value] : *config) {
      const json::value first = value_in(a, key), second = value_in(b, key);
      if (first != second) out[key] = json::array{first, second};
    }
  }
  return out;
}

}  // namespace

TensorStatistics tensor_statistics(const TensorView& tensor) {
  TensorStatistics out;
  double sum = 0, squares = 0;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for_each_block(tensor, [&](std::span<const double> block) {
    for (const double x : block) {
      if (!std::isfinite(x)) {
        ++out.non_finite;
        continue;
      }
      low = std::min(low, x);
      high = std::max(high, x);
      sum += x;
      squares += x * x;
    }
  });
  out.numel = tensor.numel();
  const int64_t finite = out.numel - out.non_finite;
  if (finite == 0) return out;
  out.min = low;
  out.max = high;
  out.mean = sum / static_cast<double>(finite);
  out.rms = std::sqrt(squares / static_cast<double>(finite));
  return out;
}

std::vector<std::string> misfits(const ModelConfig& config,
                                 const std::vector<TensorView>& tensors) {
  struct Expected {
    std::vector<int64_t> shape;
    bool int8 = false;
  };
  std::map<std::string, Expected> expected;
  for (const ParameterSpec& spec : decoder_parameters(config)) {
    expected[spec.name] = {spec.shape, spec.int8};
    if (spec.int8) expected[spec.name + std::string(kScaleSuffix)] = {{spec.shape[0]}};
  }
  std::vector<std::string> out;
  for (const TensorView& tensor : model_tensors(tensors, config)) {
    const auto spec = expected.find(tensor.name);
    if (spec == expected.end()) {
      out.push_back(fmt::format("tensor '{}' has no place in config.json", tensor.name));
      continue;
    }
    const auto& [shape, int8] = spec->second;
    if (tensor.shape != shape)
      out.push_back(fmt::format("tensor '{}' is {}, config.json asks for {}", tensor.name,
                                shape_text(tensor.shape), shape_text(shape)));
    if (int8 ? tensor.dtype != DType::kI8 : !is_floating(tensor.dtype))
      out.push_back(fmt::format("tensor '{}' is {}, expected {}", tensor.name,
                                dtype_name(tensor.dtype), int8 ? "I8" : "a floating type"));
    expected.erase(spec);
  }
  for (const auto& [name, what] : expected)
    out.push_back(fmt::format("tensor '{}' {} is missing", name, shape_text(what.shape)));
  return out;
}

json::object inspect_model(const fs::path& directory) {
  const ModelConfig config = read_model_config(directory);
  const WeightFiles files(directory);
  json::array tensors;
  int64_t bytes = 0;
  for (const TensorView& tensor : files.tensors()) {
    const TensorStatistics s = tensor_statistics(tensor);
    bytes += static_cast<int64_t>(tensor.bytes.size());
    tensors.push_back(json::object{{"name", tensor.name},
                                   {"dtype", dtype_name(tensor.dtype)},
                                   {"shape", json::value_from(tensor.shape)},
                                   {"min", s.min},
                                   {"max", s.max},
                                   {"mean", s.mean},
                                   {"rms", s.rms},
                                   {"non_finite", s.non_finite}});
  }
  const json::object as_json = model_config_to_json(config);
  return {{"model_type", as_json.at("model_type")},
          {"parameters", num_parameters(decoder_parameters(config))},
          {"layers", config.num_layers},
          {"mixers", strip_of(config)},
          {"weight_bytes", bytes},
          {"kv_bytes_per_token_bf16", config.kv_bytes_per_token()},
          {"state_bytes_per_sequence", config.state_bytes()},
          {"misfits", json::value_from(misfits(config, files.tensors()))},
          {"config", as_json},
          {"tensors", tensors}};
}

json::object diff_models(const fs::path& a, const fs::path& b) {
  const WeightFiles files_a(a), files_b(b);
  json::array only_a, only_b;
  std::vector<std::pair<double, json::object>> different;
  int64_t equal = 0;
  for (const TensorView& x : files_a.tensors()) {
    const TensorView* y = files_b.find(x.name);
    if (y == nullptr) {
      only_a.push_back(json::value(x.name));
      continue;
    }
    if (x.shape != y->shape) {
      different.push_back(
          {std::numeric_limits<double>::infinity(),
           {{"name", x.name},
            {"shape", json::array{json::value_from(x.shape), json::value_from(y->shape)}}}});
      continue;
    }
    const Difference d = compare(x, *y);
    if (d.changed == 0 && x.dtype == y->dtype) {
      ++equal;
      continue;
    }
    different.push_back({d.relative,
                         {{"name", x.name},
                          {"shape", json::value_from(x.shape)},
                          {"dtype", pair_or_one(dtype_name(x.dtype), dtype_name(y->dtype))},
                          {"changed", d.changed},
                          {"max", d.max},
                          {"relative", d.relative}}});
  }
  for (const TensorView& y : files_b.tensors())
    if (files_a.find(y.name) == nullptr) only_b.push_back(json::value(y.name));
  std::stable_sort(different.begin(), different.end(), [](const auto& x, const auto& y) {
    // Not a number sorts before all numbers.
    return !std::isnan(y.first) && (std::isnan(x.first) || x.first > y.first);
  });
  json::array listed;
  for (auto& entry : different) listed.push_back(std::move(entry.second));
  return {{"only_a", only_a},
          {"only_b", only_b},
          {"equal", equal},
          {"different", listed},
          {"config", diff_configs(read_model_config(a), read_model_config(b))}};
}

}  // namespace halo
