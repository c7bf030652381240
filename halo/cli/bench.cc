// halo bench: figures of this machine.
#include "halo/bench/bench.h"

#include <iostream>

#include "halo/cli/commands.h"
#include "halo/runtime/machine.h"

namespace halo {

namespace {

void add_tokenize_bench(CLI::App* bench) {
  auto args = std::make_shared<TokenizeBenchArgs>();
  CLI::App* tokenize = bench->add_subcommand("tokenize", "Text to ids on one thread, in memory");
  tokenize->add_option("model", args->model, "folder with tokenizer.json")->required();
  tokenize->add_option("inputs", args->inputs, "text, JSONL (.zst, .gz) or Parquet")->required();
  tokenize->footer("Example: halo bench tokenize demo/teacher text.jsonl.zst");
  tokenize->callback([args] { std::cout << format_json(bench_tokenize(*args)) << "\n"; });
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Figures of this machine beside their limits");
  bench->require_subcommand(1);
  add_tokenize_bench(bench);

  auto load_args = std::make_shared<LoadBenchArgs>();
  load_args->run.compute = "bfloat16";
  CLI::App* load = bench->add_subcommand("load", "Load a model and sum every tensor once");
  load->add_option("model", load_args->model, "model directory")->required();
  load->add_option("--device", load_args->run.device, "cpu | cuda");
  load->add_option("--compute", load_args->run.compute, "float32 | bfloat16");
  load->add_option("--threads", load_args->run.threads, "CPU threads; 0: all");
  load->footer("Example: halo bench load runs/demo/model (comparisons/load.py: beside `cat`)");
  load->callback([load_args] { std::cout << format_json(bench_load(*load_args)) << "\n"; });

  const CLI::Range at_least_one(int64_t{1}, int64_t{1} << 40);
  auto args = std::make_shared<TrainBenchArgs>();
  CLI::App* train = bench->add_subcommand("train", "Steps of a stage on one batch");
  train->add_option("--stage", args->stage, "align | distill | finetune");
  train->add_option("--config", args->config, "config.json of a hybrid: random weights");
  train->add_option("--teacher", args->teacher, "model directory");
  train->add_option("--student", args->student, "hybrid directory");
  train->add_option("--sequence-length", args->sequence_length, "tokens a row")
      ->check(at_least_one);
  train->add_option("--rows", args->rows, "rows a micro-batch")->check(at_least_one);
  train->add_option("--micro-batches", args->micro_batches, "micro-batches a step")
      ->check(at_least_one);
  train->add_option("--steps", args->steps, "timed steps")->check(at_least_one);
  train->add_option("--ids", args->ids, "safetensors with input_ids; else random ids");
  train->add_option("--device", args->run.device, "cpu | cuda");
  train->add_option("--compute", args->run.compute, "float32 | bfloat16");
  train->add_option("--deterministic", args->run.deterministic, "as run.deterministic of a recipe");
  train->add_flag("--activation-checkpointing", args->run.activation_checkpointing,
                  "as run.activation_checkpointing of a recipe");
  train->add_option("--cuda-graphs", args->run.cuda_graphs, "as run.cuda_graphs of a recipe");
  train->add_option("--threads", args->run.threads, "CPU threads; 0: all");
  train->footer(
      "Example: halo bench train --stage distill --config configs/model/hypenet-2b.json "
      "--sequence-length 512 --rows 12 --micro-batches 8 --device cuda --compute bfloat16");
  train->callback([args] { std::cout << format_json(bench_train(*args)) << "\n"; });

  auto run = std::make_shared<RunRecipe>();
  CLI::App* kernels = bench->add_subcommand(
      "kernels", "Fused operations, optimiser and loss heads at the shapes of a 2B model");
  kernels->add_option("--device", run->device, "cpu | cuda");
  kernels->add_option("--compute", run->compute, "float32 | bfloat16");
  kernels->add_option("--threads", run->threads, "CPU threads; 0: all");
  kernels->footer("Example: halo bench kernels --device cuda --compute bfloat16");
  kernels->callback([run] {
    const Machine machine = open_machine(*run);
    json::object result{{"device", machine.device_name}};
    for (auto& [key, value] : bench_kernels(machine.device, machine.compute)) result[key] = value;
    std::cout << format_json(result) << "\n";
  });
}

}  // namespace halo
