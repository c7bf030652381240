// halo export: a hybrid as a directory that Python's transformers loads.
#include "halo/exchange/export.h"

#include <filesystem>
#include <iostream>

#include "halo/base/progress.h"
#include "halo/cli/commands.h"
#include "halo/exchange/inspect.h"
#include "halo/exchange/model_card.h"
#include "halo/pipeline/run_folder.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

struct ExportArgs {
  std::string model, out, run;
};

void run_export(const ExportArgs& args) {
  const Progress phase("export");
  const fs::path model = fs::absolute(args.model).lexically_normal();
  const ModelConfig config = read_model_config(args.model);
  const auto wrong = misfits(config, WeightFiles(args.model).tensors());
  if (const std::string why = why_stale(args.model); !why.empty()) throw Error(why);
  if (!wrong.empty()) throw_error("{}: {}", args.model, wrong.front());
  // RUN/model is what `halo convert` leaves.
  fs::path run = args.run;
  const fs::path parent = (model.has_filename() ? model : model.parent_path()).parent_path();
  if (run.empty() && fs::exists(parent / "summary.json")) run = parent;
  const fs::path title = fs::absolute(args.out).lexically_normal();
  export_model(args.model, args.out,
               model_card((title.has_filename() ? title : title.parent_path()).filename().string(),
                          config, run));
  std::cout << fmt::format("{}: loads with transformers, trust_remote_code=True\n", args.out);
}

}  // namespace

void add_export(CLI::App& app) {
  auto args = std::make_shared<ExportArgs>();
  CLI::App* command = app.add_subcommand(
      "export", "A hybrid as a directory that Python's transformers loads, with a model card");
  command->add_option("model", args->model, "directory of the hybrid")->required();
  command->add_option("--out", args->out, "directory to write; new or empty")->required();
  command->add_option("--run", args->run,
                      "run folder for the card's figures; else the one that holds the model");
  command->footer("Example: halo export runs/demo/model --out demo-hypenet");
  command->callback([args] { run_export(*args); });
}

}  // namespace halo
