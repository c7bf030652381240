// halo bench: figures of this machine, each beside the limit it can be judged by.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <string>
#include <vector>

#include "halo/base/json.h"
#include "halo/base/settings.h"
#include "halo/engine/engine_recipe.h"
#include "halo/model/fp8_matrices.h"
#include "halo/runtime/communicator.h"
#include "halo/runtime/run_recipe.h"
#include "halo/train/settings.h"

namespace halo {

// The stages that train, by their names in the pipeline's table.
std::span<const Word<std::string>> trained_stages();

struct TrainBenchArgs {
  std::string stage = "distill";  // of trained_stages()
  // What trains: a hybrid's config.json, with random weights and a teacher of its shapes; or model
  // directories.
  std::string config;
  std::string teacher, student;
  int64_t sequence_length = 1024;
  int64_t rows = 2;           // a micro-batch
  int64_t micro_batches = 1;  // a step, on each rank or group
  int64_t context_ranks = 1;  // that share a row
  Split split = Split::kRows;
  TeacherProducts teacher_products = TeacherProducts::kComputed;
  int64_t warmup = 2, steps = 9;
  std::string ids;      // safetensors with input_ids [rows, sequence_length]; empty: random ids
  std::string save_to;  // folder for checkpoints that are timed and removed; empty: none
  RunRecipe run;

  void settings(Settings& s) {
    s("stage", stage, trained_stages(), {.help = "whose steps"});
    s("config", config, {.help = "config.json of a hybrid: random weights"});
    s("teacher", teacher, {.help = "model directory"});
    s("student", student, {.help = "hybrid directory"});
    s("sequence_length", sequence_length, {.help = "tokens a row", .min = 2, .max = 16'777'216});
    s("rows", rows, {.help = "rows a micro-batch", .min = 1, .max = 65'536});
    s("micro_batches", micro_batches,
      {.help = "micro-batches a step of each rank", .min = 1, .max = 65'536});
    s("context_ranks", context_ranks,
      {.help = "stage 3: ranks that share a row", .min = 1, .max = 1024});
    s("split", split, kSplits, {.help = "stage 1: what ranks divide"});
    s("teacher_products", teacher_products, kTeacherProducts,
      {.help = "type of the teacher's products (distill.teacher_products)"});
    s("steps", steps, {.help = "timed steps", .min = 1, .max = 1e6});
    s("ids", ids, {.help = "safetensors with input_ids; else random ids"});
    s("save_to", save_to,
      {.help = "folder to write two checkpoints to, which go again: a step with one, with and "
               "without run.async_checkpoints"});
    s("run", run, {});
  }
};

// Steps of a stage (forward, backward, clipped AdamW), repeated on one micro-batch:
// {"tokens_per_second" (median), "seconds" of each step, "loss" of each step, the untimed first
// ones included, "flops" of a step, "matrix_gflops" (measure_matrix_gflops),
// "share_of_matrix_rate", "peak_memory_bytes" (GPU: of tensors; CPU: resident),
// "planned_memory_bytes" (peak_memory of pipeline/cost.h), on a GPU "profile" (profile_step), and
// with save_to "saves" (time_saves)}.
// Called by every rank: tokens and losses are of all of them, memory is of the one that needs most.
json::object bench_train(const TrainBenchArgs& args, Communicator& ranks = one_rank());

struct CommBenchArgs {
  int64_t megabytes = 1024;  // of the largest tensor
  int64_t repeats = 10;
  RunRecipe run;

  void settings(Settings& s) {
    s("megabytes", megabytes, {.help = "of the largest tensor", .min = 1, .max = 1e6});
    s("repeats", repeats, {.help = "timed calls", .min = 1, .max = 1e6});
    s("run", run, {});
  }
};

// What ranks tell each other: {"device", "ranks", "exchange_seconds" (of a few bytes, on the host),
// "results": a list of {"call", "bytes", "seconds" (median), "gigabytes_per_second" (that each rank
// sends and receives)}}. Called by every rank.
json::object bench_comm(const CommBenchArgs& args, Communicator& ranks);

struct TokenizeBenchArgs {
  std::string model;  // folder with tokenizer.json
  std::vector<std::string> inputs;
};

// One pass of Tokenizer::encode over the documents of `inputs` (data/readers.h) on one thread,
// which are read before: {"documents", "bytes", "tokens", "seconds", "megabytes_per_second"}.
json::object bench_tokenize(const TokenizeBenchArgs& args);

// How long a grammar's masks over the tokens of a folder with a tokenizer.json take: {"vocabulary",
// "prepare_ms" once a model, "schemas": by name, each with "compile_ms", "masks", "mask_us_median",
// "mask_us_p99", "mask_us_most"}.
json::object bench_grammar(const std::string& model);

// The memory-bound operations and the loss heads, in `dtype`: {"copy_bytes_per_second",
// "matrix_flops_per_second" of this run, "kernels": a list of {"name", "seconds", "bytes" and
// "share_of_copy", or "flops" and "share_of_matrix_rate"}}. On a GPU with our kernels, proven or
// not, and beside them "libtorch_seconds" and the "difference" of the results; where that is too
// large, "failed" stands in the place of figures.
json::object bench_kernels(at::Device device, at::ScalarType dtype);

struct InferBenchArgs {
  std::string model;   // directory; or
  std::string config;  // config.json, with random weights
  std::vector<int64_t> contexts{4096};
  std::vector<int64_t> batches{1};
  bool prefill = true;  // measure it too; else a sequence's past is random numbers
  // Timed, one behind the other without a pause: a GPU that was idle reads the first ones faster
  // than its power allows it to go on.
  int64_t prompts = 1;
  int64_t steps = 32;  // timed
  EngineRecipe engine;
  MachineRecipe machine{.compute = at::kBFloat16};

  void settings(Settings& s) {
    s("config", config, {.help = "config.json: random weights"});
    s("contexts", contexts, {.help = "tokens before a step", .min = 1, .max = kMaxCount});
    s("batch", batches, {.help = "sequences in a step", .min = 1, .max = 65'536});
    s("prefill", prefill, {.help = "measure it too, else the past is random"});
    s("prompts", prompts, {.help = "timed prompts, one after another", .min = 1, .max = 1e6});
    s("steps", steps, {.help = "timed steps", .min = 1, .max = 1e6});
    s("engine", engine, {});
    s("machine", machine, {});
  }
};

// Steps of decoding behind `context` tokens of each of `batch` sequences, on a GPU as CUDA graphs
// where the model has its kernels, else by the engine:
// {"device", "read_bytes_per_second" (a sum over 4 GB, on a CPU 1 GB), "weight_bytes",
// "token_bytes" (keys and values of one stored token), "invariant",
// "results": a list of {"context", "batch", "prefill_seconds" (of one sequence's context, on
// average of `prompts`; null where not measured), on a GPU "prefill_profile" (profile_step, of its
// last chunk), "token_seconds" (a step, median), "floor_seconds" (weights, keys and values once,
// recurrent states twice at that rate), "share_of_floor", "tokens_per_second" (of the batch),
// "memory_bytes" (the most so far in the process)}}.
json::object bench_infer(const InferBenchArgs& args);

struct LoadBenchArgs {
  std::string model;  // directory
  MachineRecipe machine{.compute = at::kBFloat16};
};

// Loads a model and sums every tensor in the form it runs in: {"bytes" (of the weight files),
// "seconds" (all), "sum_seconds" (of it the sums), "gigabytes_per_second", "sum",
// "peak_resident_bytes" (of the process, mapped pages of files included), "peak_share" (of bytes)}.
json::object bench_load(const LoadBenchArgs& args);

}  // namespace halo
