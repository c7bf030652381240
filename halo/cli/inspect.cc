// halo inspect: what a model directory holds.
#include <iostream>

#include "halo/cli/commands.h"
#include "halo/model/decoder.h"

namespace halo {
namespace {

json::object inspect(const std::string& directory) {
  const ModelConfig c = read_model_config(directory);
  json::array tensors;
  for (const TensorView& tensor : WeightFiles(directory).tensors()) {
    tensors.push_back(json::object{{"name", tensor.name},
                                   {"dtype", dtype_name(tensor.dtype)},
                                   {"shape", json::value_from(tensor.shape)}});
  }
  const auto attention = static_cast<int64_t>(c.attention_layers().size());
  std::string strip;
  for (MixerType type : c.mixer_types) strip += type == MixerType::kAttention ? 'A' : '-';
  const int64_t state = c.lightning_heads * c.lightning_head_dim * c.lightning_head_dim * 4;
  return {{"parameters", num_parameters(decoder_parameters(c))},
          {"layers", c.num_layers},
          {"mixers", strip},
          {"kv_bytes_per_token_bf16", 2 * attention * c.num_kv_heads * c.head_dim * 2},
          {"state_bytes_per_sequence", (c.num_layers - attention) * state},
          {"config", model_config_to_json(c)},
          {"tensors", tensors}};
}

}  // namespace

void add_inspect(CLI::App& app) {
  struct Args {
    std::string model;
    bool json = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command =
      app.add_subcommand("inspect", "Configuration, tensors and sizes of a model directory");
  command->add_option("model", args->model, "Hugging Face directory")->required();
  command->add_flag("--json", args->json, "print JSON");
  command->footer("Example: halo inspect runs/demo/model");
  command->callback([args] {
    const json::object result = inspect(args->model);
    if (args->json) {
      std::cout << format_json(result) << "\n";
      return;
    }
    for (const char* key : {"parameters", "layers", "mixers", "kv_bytes_per_token_bf16",
                            "state_bytes_per_sequence"}) {
      const json::value& value = result.at(key);
      std::cout << fmt::format(
          "{:<26} {}\n", key,
          value.is_string() ? std::string(value.as_string()) : json::serialize(value));
    }
    for (const json::value& tensor : result.at("tensors").as_array()) {
      std::cout << fmt::format("  {:<60} {:<5} {}\n", std::string(tensor.at("name").as_string()),
                               std::string(tensor.at("dtype").as_string()),
                               json::serialize(tensor.at("shape")));
    }
  });
}

}  // namespace halo
