// Rotary settings in config.json.
#include "halo/formats/config_keys.h"

namespace halo {
namespace {

const std::vector<std::pair<std::string, RopeScaling::Type>> kRopeTypes = {
    {"default", RopeScaling::Type::kNone},
    {"linear", RopeScaling::Type::kLinear},
    {"llama3", RopeScaling::Type::kLlama3},
    {"yarn", RopeScaling::Type::kYarn}};

// The scaling that an object of rotary settings asks for, whose other keys were read before.
RopeScaling read_scaling(KeyReader& keys, int64_t max_position_embeddings) {
  RopeScaling scaling;
  // "type" is the older spelling of "rope_type".
  const bool is_old = keys.find("type") != nullptr && keys.find("rope_type") == nullptr;
  const std::string type_key = is_old ? "type" : "rope_type";
  scaling.type = keys.one_of(type_key, keys.get<std::string>(type_key), kRopeTypes);
  std::vector<std::string> known = {"rope_type", "type"};
  if (scaling.type != RopeScaling::Type::kNone) {
    known.push_back("factor");
    keys.get<double>("factor");
    scaling.factor = keys.positive_or("factor", 1);
  }
  if (scaling.type == RopeScaling::Type::kLlama3) {
    known.insert(known.end(),
                 {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
    keys.get<double>("low_freq_factor");
    keys.get<double>("high_freq_factor");
    scaling.low_freq_factor = keys.positive_or("low_freq_factor", 1);
    scaling.high_freq_factor = keys.positive_or("high_freq_factor", 4);
    if (scaling.high_freq_factor <= scaling.low_freq_factor)
      keys.refuse("high_freq_factor", "expected more than low_freq_factor");
    scaling.original_max_position_embeddings =
        keys.size("original_max_position_embeddings", kMaxPosition);
  }
  if (scaling.type == RopeScaling::Type::kYarn) {
    known.insert(known.end(), {"beta_fast", "beta_slow", "attention_factor",
                               "original_max_position_embeddings"});
    scaling.beta_fast = keys.positive_or("beta_fast", 32);
    scaling.beta_slow = keys.positive_or("beta_slow", 1);
    if (keys.find("attention_factor") != nullptr)
      scaling.attention_factor = keys.positive_or("attention_factor", 1);
    scaling.original_max_position_embeddings =
        keys.size_or("original_max_position_embeddings", max_position_embeddings, kMaxPosition);
  }
  for (const auto& [key, value] : keys.unread())
    keys.refuse(key,
                fmt::format("unknown for this rope_type; did you mean '{}'?", nearest(key, known)));
  return scaling;
}

double read_theta(KeyReader& keys, double fallback) {
  const double theta = keys.positive_or("rope_theta", fallback);
  if (theta <= 1) keys.refuse("rope_theta", "expected a number above 1");
  return theta;
}

}  // namespace

void read_rope(KeyReader& keys, const std::string& file, ModelConfig& config) {
  config.rope_theta = read_theta(keys, 10000);
  const bool has_scaling = keys.find("rope_scaling") != nullptr;
  if (has_scaling) {
    const json::object object = keys.get<json::object>("rope_scaling");
    KeyReader inner(object, file + ": rope_scaling");
    config.rope_scaling = read_scaling(inner, config.max_position_embeddings);
  }
  if (keys.find("rope_parameters") == nullptr) return;
  const json::object object = keys.get<json::object>("rope_parameters");
  KeyReader inner(object, file + ": rope_parameters");
  const double theta = read_theta(inner, config.rope_theta);
  const RopeScaling scaling = read_scaling(inner, config.max_position_embeddings);
  if ((keys.find("rope_theta") != nullptr && theta != config.rope_theta) ||
      (has_scaling && scaling != config.rope_scaling))
    keys.refuse("rope_parameters", "'rope_theta' and 'rope_scaling' beside it say something else");
  config.rope_theta = theta;
  config.rope_scaling = scaling;
}

json::value rope_scaling_to_json(const RopeScaling& scaling) {
  if (scaling.type == RopeScaling::Type::kNone) return nullptr;
  json::object out{{"rope_type", name_of(kRopeTypes, scaling.type)}, {"factor", scaling.factor}};
  if (scaling.type == RopeScaling::Type::kLlama3) {
    out["low_freq_factor"] = scaling.low_freq_factor;
    out["high_freq_factor"] = scaling.high_freq_factor;
    out["original_max_position_embeddings"] = scaling.original_max_position_embeddings;
  }
  if (scaling.type == RopeScaling::Type::kYarn) {
    out["beta_fast"] = scaling.beta_fast;
    out["beta_slow"] = scaling.beta_slow;
    if (scaling.attention_factor != 0) out["attention_factor"] = scaling.attention_factor;
    out["original_max_position_embeddings"] = scaling.original_max_position_embeddings;
  }
  return out;
}

}  // namespace halo
