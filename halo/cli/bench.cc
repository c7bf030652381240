// halo bench: figures of this machine.
#include "halo/bench/bench.h"

#include <iostream>

#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/cli/commands.h"
#include "halo/runtime/machine.h"
#include "halo/runtime/ranks.h"

namespace halo {

namespace {

// Prints what `measure` gives.
template <class F>
void print_measured(F measure) {
  json::object result;
  {
    const Progress phase("bench");
    result = measure();
  }
  std::cout << format_json(result) << "\n";
}

// What the first rank gets.
template <class F>
void print_measured_on_ranks(const RunRecipe& run, F measure) {
  run_ranks(run, [&](Communicator& ranks) {
    json::object result;
    {
      const Progress phase("bench");
      result = measure(ranks);
    }
    if (ranks.is_first()) std::cout << format_json(result) << "\n";
    ranks.wait();
  });
}

void add_tokenize_bench(CLI::App* bench) {
  auto args = std::make_shared<TokenizeBenchArgs>();
  CLI::App* tokenize = bench->add_subcommand("tokenize", "Text to ids on one thread, in memory");
  tokenize->add_option("model", args->model, "folder with tokenizer.json")->required();
  tokenize->add_option("inputs", args->inputs, "text, JSONL (.zst, .gz) or Parquet")->required();
  tokenize->footer("Example: halo bench tokenize demo/teacher text.jsonl.zst");
  tokenize->callback([args] { print_measured([&] { return bench_tokenize(*args); }); });
}

void add_grammar_bench(CLI::App* bench) {
  auto model = std::make_shared<std::string>();
  CLI::App* grammar = bench->add_subcommand("grammar", "Masks of tokens that a JSON schema allows");
  grammar->add_option("model", *model, "folder with tokenizer.json")->required();
  grammar->footer("Example: halo bench grammar demo/teacher");
  grammar->callback([model] { print_measured([&] { return bench_grammar(*model); }); });
}

void add_infer_bench(CLI::App* bench) {
  auto args = std::make_shared<InferBenchArgs>();
  CLI::App* infer = bench->add_subcommand("infer", "Prefill and decoding at given contexts");
  infer->add_option("model", args->model, "model directory");
  add_options(*infer, *args);
  infer->footer(
      "Example: halo bench infer --config configs/model/hypenet-2b.json --device cuda "
      "--contexts 4096,131072 --batch 1,8");
  infer->callback([args] { print_measured([&] { return bench_infer(*args); }); });
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Figures of this machine beside their limits");
  bench->require_subcommand(1);
  add_tokenize_bench(bench);
  add_grammar_bench(bench);
  add_infer_bench(bench);

  auto load_args = std::make_shared<LoadBenchArgs>();
  CLI::App* load = bench->add_subcommand("load", "Load a model and sum every tensor once");
  load->add_option("model", load_args->model, "model directory")->required();
  add_options(*load, load_args->machine);
  load->footer("Example: halo bench load runs/demo/model (comparisons/load.py: beside `cat`)");
  load->callback([load_args] { print_measured([&] { return bench_load(*load_args); }); });

  auto args = std::make_shared<TrainBenchArgs>();
  CLI::App* train = bench->add_subcommand("train", "Steps of a stage on one batch");
  add_options(*train, *args);
  train->footer(
      "Example: halo bench train --stage distill --config configs/model/hypenet-2b.json "
      "--sequence-length 512 --rows 12 --micro-batches 8 --device cuda --compute bfloat16");
  train->callback([args] {
    print_measured_on_ranks(args->run,
                            [&](Communicator& ranks) { return bench_train(*args, ranks); });
  });

  auto comm_args = std::make_shared<CommBenchArgs>();
  CLI::App* comm = bench->add_subcommand("comm", "What ranks tell each other, by size");
  add_options(*comm, *comm_args);
  comm->footer("Examples: halo bench comm --ranks 2; halo launch -n 2 -- bench comm --device cuda");
  comm->callback([comm_args] {
    print_measured_on_ranks(comm_args->run,
                            [&](Communicator& ranks) { return bench_comm(*comm_args, ranks); });
  });

  auto where = std::make_shared<MachineRecipe>();
  CLI::App* kernels = bench->add_subcommand(
      "kernels", "Fused operations, optimiser and loss heads at the shapes of a 2B model");
  add_options(*kernels, *where);
  kernels->footer("Example: halo bench kernels --device cuda --compute bfloat16");
  kernels->callback([where] {
    print_measured([&] {
      const Machine machine = open_machine(*where);
      json::object result{{"device", machine.device_name}};
      for (auto& [key, value] : bench_kernels(machine.device, machine.compute)) result[key] = value;
      return result;
    });
  });
}

}  // namespace halo
