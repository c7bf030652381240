// Rotary settings in config.json.
#include "halo/formats/config_keys.h"

namespace halo {
namespace {

constexpr const char* kFullAttention = "full_attention";

const std::vector<std::pair<std::string, RopeScaling::Type>> kRopeTypes = {
    {"default", RopeScaling::Type::kNone},
    {"linear", RopeScaling::Type::kLinear},
    {"llama3", RopeScaling::Type::kLlama3},
    {"yarn", RopeScaling::Type::kYarn}};

// YaRN's usual growth of scores with the factor, as in its paper.
double yarn_magnitude(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

void read_llama3(KeyReader& keys, int64_t max_position_embeddings, RopeScaling& scaling) {
  keys.get<double>("low_freq_factor");
  keys.get<double>("high_freq_factor");
  scaling.low_freq_factor = keys.positive_or("low_freq_factor", 1);
  scaling.high_freq_factor = keys.positive_or("high_freq_factor", 4);
  if (scaling.high_freq_factor <= scaling.low_freq_factor)
    keys.refuse("high_freq_factor", "expected more than low_freq_factor");
  scaling.original_max_position_embeddings =
      keys.size_or("original_max_position_embeddings", max_position_embeddings, kMaxPosition);
}

void read_yarn(KeyReader& keys, int64_t max_position_embeddings, RopeScaling& scaling) {
  scaling.original_max_position_embeddings =
      keys.size_or("original_max_position_embeddings", max_position_embeddings, kMaxPosition);
  if (keys.find("factor") == nullptr)  // null: what the lengths say
    scaling.factor = static_cast<double>(max_position_embeddings) /
                     static_cast<double>(scaling.original_max_position_embeddings);
  scaling.beta_fast = keys.positive_or("beta_fast", 32);
  scaling.beta_slow = keys.positive_or("beta_slow", 1);
  scaling.truncate = keys.get_or<bool>("truncate", true);
  keys.find("finetuned");  // says how the model came about
  const auto mscale = keys.get_or<double>("mscale", 0);
  const auto mscale_all_dim = keys.get_or<double>("mscale_all_dim", 0);
  if (keys.find("attention_factor") != nullptr) {
    scaling.attention_factor = keys.positive_or("attention_factor", 1);
  } else if (mscale != 0 && mscale_all_dim != 0) {  // one of them alone counts as none
    scaling.attention_factor =
        yarn_magnitude(scaling.factor, mscale) / yarn_magnitude(scaling.factor, mscale_all_dim);
    if (!(scaling.attention_factor > 0) || !std::isfinite(scaling.attention_factor))
      keys.refuse("mscale", "expected, with mscale_all_dim, a factor above 0");
  }
}

// The scaling that an object of rotary settings asks for, whose other keys were read before.
RopeScaling read_scaling(KeyReader& keys, int64_t max_position_embeddings) {
  RopeScaling scaling;
  // "type" is the older spelling of "rope_type". Without either there is no scaling.
  const bool is_old = keys.find("type") != nullptr && keys.find("rope_type") == nullptr;
  const std::string type_key = is_old ? "type" : "rope_type";
  scaling.type = keys.one_of(type_key, keys.get_or<std::string>(type_key, "default"), kRopeTypes);
  if (keys.get_or<double>("partial_rotary_factor", 1) != 1)
    keys.refuse("partial_rotary_factor", "rotation of a part of the head is not supported");
  std::vector<std::string> known = {"rope_type", "type"};
  if (scaling.type != RopeScaling::Type::kNone) {
    known.push_back("factor");
    if (scaling.type != RopeScaling::Type::kYarn || !keys.is_present("factor"))
      keys.get<double>("factor");
    scaling.factor = keys.positive_or("factor", 1);
  }
  if (scaling.type == RopeScaling::Type::kLlama3) {
    known.insert(known.end(),
                 {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
    read_llama3(keys, max_position_embeddings, scaling);
  }
  if (scaling.type == RopeScaling::Type::kYarn) {
    known.insert(known.end(), {"beta_fast", "beta_slow", "attention_factor", "mscale",
                               "mscale_all_dim", "truncate", "original_max_position_embeddings"});
    read_yarn(keys, max_position_embeddings, scaling);
  }
  for (const auto& [key, value] : keys.unread()) {
    if (value.is_null()) continue;
    if (!keys.is_present("rope_type") && !keys.is_present("type"))
      keys.refuse(key, "a scaling needs a 'rope_type'; which is it?");
    keys.refuse(key,
                fmt::format("unknown for this rope_type; did you mean '{}'?", nearest(key, known)));
  }
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
    config.rope_theta = read_theta(inner, config.rope_theta);
    config.rope_scaling = read_scaling(inner, config.max_position_embeddings);
  }
  if (keys.find("rope_parameters") == nullptr) return;
  json::object object = keys.get<json::object>("rope_parameters");
  std::string place = file + ": rope_parameters";
  // One object for each of the types in layer_types, all of which are one here.
  const json::value* full = object.if_contains(kFullAttention);
  if (full != nullptr && keys.is_present("layer_types")) {
    if (!full->is_object()) throw_error("{}: '{}' must be an object", place, kFullAttention);
    place += fmt::format(": {}", kFullAttention);
    object = json::object(full->get_object());
  }
  KeyReader inner(object, place);
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
    if (!scaling.truncate) out["truncate"] = false;
    out["original_max_position_embeddings"] = scaling.original_max_position_embeddings;
  }
  return out;
}

}  // namespace halo
