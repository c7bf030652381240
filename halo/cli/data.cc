// halo data pack, synthesize, inspect: text into token shards.
#include <iostream>

#include "halo/base/files.h"
#include "halo/base/options.h"
#include "halo/base/settings_io.h"
#include "halo/cli/commands.h"
#include "halo/data/pack.h"
#include "halo/pipeline/synthesize.h"

namespace halo {
namespace {

void add_pack(CLI::App& data) {
  struct Args {
    std::vector<std::string> inputs;
    std::string tokenizer, out, part;
    PackOptions options;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command =
      data.add_subcommand("pack", "Text, JSON Lines (.zst, .gz) or Parquet to shards");
  command->add_option("inputs", args->inputs, "files and folders")->required();
  command->add_option("--tokenizer", args->tokenizer, "model directory or tokenizer.json")
      ->required();
  command->add_option("--out", args->out, "folder of shards to make")->required();
  command->add_option("--shard", args->part,
                      "I/N: of N tasks' work the part of task I, every file for itself");
  add_options(*command, args->options);
  command->footer("Example: halo data pack text.jsonl.zst --tokenizer demo/teacher --out shards");
  command->callback([args] {
    std::filesystem::path tokenizer = args->tokenizer;
    if (std::filesystem::is_directory(tokenizer)) tokenizer /= "tokenizer.json";
    const std::vector<std::filesystem::path> inputs(args->inputs.begin(), args->inputs.end());
    const PackCounts counts =
        args->part.empty()
            ? pack(inputs, tokenizer, args->out, args->options)
            : pack_part(inputs, tokenizer, args->out, args->options, parse_pack_part(args->part));
    std::cout << format_json(counts_to_json(counts)) << "\n";
  });
}

void add_synthesize(CLI::App& data) {
  auto args = std::make_shared<SynthesizeArgs>();
  CLI::App* command = data.add_subcommand("synthesize", "Sample training text from a model");
  command->add_option("teacher", args->teacher, "Hugging Face directory")->required();
  command->add_option("--out", args->out, "folder of shards to make")->required();
  add_options(*command, *args);
  command->footer("Example: halo data synthesize demo/teacher --out shards --tokens 1000000");
  command->callback([args] {
    args->command = "halo data synthesize";
    for (const Setting& setting : settings_of(*args).all()) {
      if (setting.about.effect == Effect::kNone) continue;
      args->command += fmt::format(" {}={}", option_name(setting), value_to_toml(setting));
    }
    std::cout << format_json(synthesize(*args)) << "\n";
  });
}

void add_shard_inspect(CLI::App& data) {
  struct Args {
    std::string shard, tokenizer;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = data.add_subcommand("inspect", "Look into a token shard or a folder of them");
  command->add_option("shard", args->shard, "shard file, folder or glob")->required();
  command->add_option("--tokenizer", args->tokenizer, "model directory: also show the first text");
  command->footer("Example: halo data inspect shards/shard-00000.halotok --tokenizer demo/teacher");
  command->callback([args] {
    if (args->tokenizer.empty()) {
      std::cout << format_json(inspect_shards(args->shard, nullptr, "")) << "\n";
      return;
    }
    const auto path = std::filesystem::path(args->tokenizer) / "tokenizer.json";
    const Tokenizer tokenizer(path);
    std::cout << format_json(inspect_shards(args->shard, &tokenizer, hash_file(path))) << "\n";
  });
}

}  // namespace

void add_data(CLI::App& app) {
  CLI::App* data = app.add_subcommand("data", "Token shards: pack, synthesize, inspect");
  data->require_subcommand(1);
  add_pack(*data);
  add_synthesize(*data);
  add_shard_inspect(*data);
}

}  // namespace halo
