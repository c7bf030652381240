// What a recipe says about the machine and the numbers of a run: its section `run`.
#pragma once

#include <cstdint>
#include <string>

namespace halo {

struct RunRecipe {
  int64_t seed = 1;
  std::string device = "cpu";
  std::string compute = "float32";
  std::string kernels = "fast";
  int64_t threads = 0;
  bool deterministic = true;
  bool activation_checkpointing = false;
  bool cuda_graphs = true;

  template <class V>
  void fields(V& v) {
    v("seed", seed, "every random number follows from it");
    v("device", device, "cpu | cuda");
    v("compute", compute, "float32 | bfloat16 (masters are float32 always)");
    v("kernels", kernels, "fast | reference (plain, bit-equal for any batch and split; CPU)");
    v("threads", threads, "CPU threads; 0: all");
    v("deterministic", deterministic,
      "the same bits in every run; false lets bf16 attention on a GPU sum in any order, faster");
    v("activation_checkpointing", activation_checkpointing,
      "where a whole model trains, layers run again in backward: the same bits, less memory, "
      "slower");
    v("cuda_graphs", cuda_graphs,
      "on a GPU small models' micro-batches are recorded and launched as a whole: the same bits, "
      "faster");
  }
};

}  // namespace halo
