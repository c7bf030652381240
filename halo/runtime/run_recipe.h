// What a recipe says about the machine and the numbers of a run: its section `run`.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "halo/base/settings.h"
#include "halo/kernels/common/sequences.h"

namespace halo {

inline constexpr Word<at::DeviceType> kDevices[] = {{"cpu", at::kCPU}, {"cuda", at::kCUDA}};
inline constexpr Word<std::optional<at::ScalarType>> kComputeTypes[] = {
    {"auto", std::nullopt}, {"float32", at::kFloat}, {"bfloat16", at::kBFloat16}};
inline constexpr Word<Kernels> kKernels[] = {{"fast", Kernels::kFast},
                                             {"reference", Kernels::kReference}};

// What several ranks keep each for itself.
enum class Shard {
  kNone,       // each has all
  kOptimizer,  // each keeps fp32 masters and moments of its own part alone
  kFull,       // gradients and weights too, the teacher's as well; a layer's are fetched for use
};
inline constexpr Word<Shard> kShards[] = {
    {"none", Shard::kNone}, {"optimizer", Shard::kOptimizer}, {"full", Shard::kFull}};

// Where and how any command computes.
struct MachineRecipe {
  at::DeviceType device = at::kCPU;
  std::optional<at::ScalarType> compute;  // none: that of the device
  Kernels kernels = Kernels::kFast;
  int64_t threads = 0;
  bool deterministic = true;

  void settings(Settings& s) {
    s("device", device, kDevices, {.help = "where it runs"});
    s("compute", compute, kComputeTypes,
      {.help = "type of products and activations (masters are float32 always); auto: bfloat16 on "
               "a GPU, float32 on a CPU"});
    s("kernels", kernels, kKernels,
      {.help = "fast ones, or plain ones that are bit-equal for any batch and split (CPU only)"});
    s("threads", threads, {.help = "CPU threads; 0: all", .max = 1024, .effect = Effect::kNone});
    s("deterministic", deterministic,
      {.help = "the same bits in every run; false lets bf16 attention on a GPU sum in any order, "
               "faster"});
  }
};

// And how a run trains. Its numbers do not depend on where it runs, unless it says so.
struct RunRecipe : MachineRecipe {
  int64_t seed = 1;
  bool activation_checkpointing = false;
  bool cuda_graphs = true;
  bool async_checkpoints = false;
  int64_t ranks = 1;
  double rank_seconds = 120;
  Shard shard = Shard::kNone;

  RunRecipe() { compute = at::kFloat; }

  void settings(Settings& s) {
    s("seed", seed, {.help = "every random number follows from it", .max = kMaxCount});
    MachineRecipe::settings(s);
    s("activation_checkpointing", activation_checkpointing,
      {.help = "where a whole model trains, layers run again in backward: the same bits, less "
               "memory, slower",
       .effect = Effect::kNone});
    s("cuda_graphs", cuda_graphs,
      {.help = "on a GPU small models' micro-batches are recorded and launched as a whole: the "
               "same bits, faster",
       .effect = Effect::kNone});
    s("async_checkpoints", async_checkpoints,
      {.help = "checkpoints are copied to the host's memory and written beside the steps that "
               "follow: the same files, more of that memory",
       .effect = Effect::kNone});
    s("ranks", ranks,
      {.help = "workers that share each step's rows: threads on a CPU; on GPUs those that `halo "
               "launch`, torchrun or Slurm starts",
       .min = 1,
       .max = 1024,
       .effect = Effect::kNone});
    s("rank_seconds", rank_seconds,
      {.help = "how long a rank waits for another in a step before the run ends with exit code 5",
       .min = 0.1,
       .max = 1e6,
       .effect = Effect::kNone});
    s("shard", shard, kShards,
      {.help = "what each rank keeps its part of alone: nothing, the optimizer's state (the same "
               "bits), or gradients and weights too, student's and teacher's (full); less memory",
       .effect = Effect::kNone});
  }
};

}  // namespace halo
