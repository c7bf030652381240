// The subcommands of `halo`, one file each. Every add_* declares flags and help and sets the
// callback that runs the command; errors are exceptions, main turns them into exit codes.
#pragma once

#include <CLI/CLI.hpp>

#include "halo/base/check.h"

namespace halo {

// Of a command that reads a recipe: --set, and the run section's keys as options over it
// (--device, --threads, ...). `set` must outlive the parsing.
void add_recipe_options(CLI::App& command, std::vector<std::string>& set);

void add_init(CLI::App& app);
void add_convert(CLI::App& app);  // convert and its stages alone
void add_runs(CLI::App& app);     // status, branch
void add_sweep(CLI::App& app);
void add_pretrain(CLI::App& app);
void add_data(CLI::App& app);  // data pack, synthesize, inspect
void add_eval(CLI::App& app);
void add_logits(CLI::App& app);
void add_generate(CLI::App& app);
void add_chat(CLI::App& app);
void add_serve(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_import(CLI::App& app);
void add_export(CLI::App& app);
void add_quantize(CLI::App& app);
void add_inspect(CLI::App& app);
void add_launch(CLI::App& app);
void add_plan(CLI::App& app);
void add_report(CLI::App& app);
void add_bench(CLI::App& app);
void add_doctor(CLI::App& app);
void add_documentation(CLI::App& app);  // completion, man

}  // namespace halo
