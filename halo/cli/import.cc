// halo import: GGUF files and the authors' checkpoints become plain Hugging Face directories.
#include "halo/exchange/import.h"

#include <iostream>

#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/cli/commands.h"

namespace halo {

void add_import(CLI::App& app) {
  struct Args : ImportArgs {
    bool json = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand(
      "import", "A GGUF file or a HypeNet checkpoint to a plain Hugging Face directory");
  command->add_option("source", args->source, "GGUF file, or folder with .safetensors")->required();
  command->add_option("--out", args->out, "folder to write")->required();
  command->add_option("--config", args->config,
                      "config.json, where the folder and the one above it have none");
  add_options(*command, static_cast<ImportArgs&>(*args));
  command->add_flag("--json", args->json, "print JSON");
  command->footer(
      "Examples: halo import model.gguf --out teacher --dtype bfloat16\n"
      "          halo import checkpoint-20000 --config config.json --out student");
  command->callback([args] {
    const Progress phase("import");
    const json::object done = import_model(*args);
    if (args->json) {
      std::cout << format_json(done) << "\n";
      return;
    }
    std::cout << fmt::format(
        "{}: layout {}, configuration of {}, {} tensors written, {} dropped\n", args->out.string(),
        std::string(done.at("layout").as_string()), std::string(done.at("config").as_string()),
        done.at("tensors").to_number<int64_t>(), done.at("dropped").to_number<int64_t>());
    if (done.at("output_gates").is_string()) {
      std::cout << fmt::format("output gates are not in the checkpoint; made by init '{}'\n",
                               std::string(done.at("output_gates").as_string()));
    }
  });
}

}  // namespace halo
