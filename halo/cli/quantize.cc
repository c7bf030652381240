// halo quantize: a model with matrices in int8, to be run.
#include "halo/exchange/quantize.h"

#include <iostream>

#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/cli/commands.h"
#include "halo/pipeline/run_folder.h"

namespace halo {

void add_quantize(CLI::App& app) {
  struct Args : QuantizeArgs {
    bool json = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand(
      "quantize", "A model with matrices in int8: half the bytes to read for every token");
  command->add_option("model", args->model, "Hugging Face directory")->required();
  command->add_option("--out", args->out, "directory to write; new or empty")->required();
  add_options(*command, static_cast<QuantizeArgs&>(*args));
  command->add_flag("--json", args->json, "print JSON");
  command->footer("Example: halo quantize runs/demo/model --out demo-int8");
  command->callback([args] {
    const Progress phase("quantize");
    if (const std::string why = why_stale(args->model); !why.empty()) throw Error(why);
    const json::object done = quantize_model(*args);
    if (args->json) {
      std::cout << format_json(done) << "\n";
      return;
    }
    std::cout << fmt::format(
        "{}: {} matrices in int8, {:.1f} MB in place of {:.1f}; rounding changed them by {:.2f}%\n",
        args->out.string(), done.at("matrices").to_number<int64_t>(),
        done.at("bytes_after").to_number<double>() / 1e6,
        done.at("bytes_before").to_number<double>() / 1e6,
        100 * done.at("relative_error").to_number<double>());
  });
}

}  // namespace halo
