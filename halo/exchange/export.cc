#include "halo/exchange/export.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/exchange/hf/sources.h"
#include "halo/formats/model_config.h"
#include "halo/formats/safetensors.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

// Hugging Face's name of the type that most of the weights have.
const char* torch_dtype(const std::vector<TensorView>& tensors) {
  size_t bf16 = 0, f16 = 0;
  for (const TensorView& tensor : tensors) {
    bf16 += tensor.dtype == DType::kBF16;
    f16 += tensor.dtype == DType::kF16;
  }
  if (2 * bf16 > tensors.size()) return "bfloat16";
  return 2 * f16 > tensors.size() ? "float16" : "float32";
}

json::object exported_config(const ModelConfig& config, const std::vector<TensorView>& tensors) {
  json::object out = model_config_to_json(config);
  out["auto_map"] = {{"AutoConfig", "configuration_hypenet.HypeNetConfig"},
                     {"AutoModel", "modeling_hypenet.HypeNetModel"},
                     {"AutoModelForCausalLM", "modeling_hypenet.HypeNetForCausalLM"}};
  // Where the model came without them: keys that the authors' configurations spell out.
  const json::object spelt_out{{"torch_dtype", torch_dtype(tensors)},
                               {"hidden_act", "silu"},
                               {"use_cache", true},
                               {"lightning_rope_scaling", nullptr},
                               {"lightning_use_short_conv", false},
                               {"lightning_conv_size", 4}};
  for (const auto& [key, value] : spelt_out) out.emplace(key, value);
  return out;
}

json::object generation_config(const json::object& config) {
  json::object out;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    const json::value* value = config.if_contains(key);
    if (value != nullptr && !value->is_null()) out[key] = *value;
  }
  return out;
}

}  // namespace

void export_model(const fs::path& model, const fs::path& out, const std::string& card) {
  const ModelConfig config = read_model_config(model);
  if (!config.is_hypenet()) {
    throw_error("{} is no hybrid (model_type \"hypenet\"); transformers loads it as it is",
                model.string());
  }
  if (config.int8_weights) {
    throw_error(
        "{}: its weights are int8, which transformers does not load; export the model that "
        "it was made of",
        model.string());
  }
  if (config.lightning_learned_decay) {
    throw_error(
        "{}: lightning_learned_decay is true (transfer.learned_decay), which the published format "
        "does not have; export a model whose decays are fixed",
        model.string());
  }
  const WeightFiles weights(model);
  const json::object json_config = exported_config(config, weights.tensors());
  commit_new_directory(out, [&](const fs::path& directory) {
    copy_side_files(model, directory);
    for (const fs::path& file : weights.paths()) copy_synced(file, directory / file.filename());
    write_json(directory / "config.json", json_config);
    if (!fs::exists(directory / "generation_config.json"))
      write_json(directory / "generation_config.json", generation_config(json_config));
    // Without it AutoTokenizer asks config.json, whose model type it does not know.
    if (fs::exists(directory / "tokenizer.json") &&
        !fs::exists(directory / "tokenizer_config.json"))
      write_json(directory / "tokenizer_config.json",
                 json::object{{"tokenizer_class", "PreTrainedTokenizerFast"}});
    write_file(directory / "configuration_hypenet.py", configuration_hypenet_py());
    write_file(directory / "modeling_hypenet.py", modeling_hypenet_py());
    write_file(directory / "README.md", card);
  });
}

}  // namespace halo
