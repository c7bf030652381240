#include <sys/resource.h>

#include <algorithm>
#include <chrono>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/random.h"
#include "halo/bench/bench.h"
#include "halo/formats/safetensors.h"
#include "halo/kernels/adamw/adamw.h"
#include "halo/stages/losses.h"
#include "halo/stages/machine.h"
#include "halo/stages/plan.h"

namespace halo {
namespace {

at::Tensor batch_ids(const TrainBenchArgs& args, int64_t vocab_size) {
  const int64_t count = args.rows * args.sequence_length;
  if (!args.ids.empty()) {
    const SafetensorsFile file(args.ids);
    const at::Tensor ids = to_tensor(file.get("input_ids")).flatten();
    HALO_CHECK(ids.numel() == count, "{}: {} ids, expected {}", args.ids, ids.numel(), count);
    return ids;
  }
  const Random random(static_cast<uint64_t>(args.run.seed), "bench.ids");
  at::Tensor ids = at::empty({count}, at::kLong);
  for (int64_t i = 0; i < count; ++i) ids.data_ptr<int64_t>()[i] = random.below(i, vocab_size);
  return ids;
}

// What train/loop does after the gradients of a step, without its bookkeeping.
void update(ParameterStore& store, int64_t step) {
  AdamWStep args;
  args.learning_rate = 1e-4;
  args.step = step;
  const at::Tensor norm = squared_norm(store.grad()).sqrt().to(at::kFloat);
  args.grad_scale = (1 / (norm + 1e-6)).clamp_max(1);
  args.apply = at::isfinite(norm).to(at::kFloat);
  at::Tensor compute = store.compute().is_same(store.master()) ? at::Tensor() : store.compute();
  adamw_step(store.master(), store.grad(), store.moment1(), store.moment2(), compute, {}, args);
  store.zero_grad();
}

}  // namespace

json::object bench_train(const TrainBenchArgs& args) {
  const Machine machine = open_machine(args.run);
  const Model teacher =
      load_model(args.teacher, ParameterStore::Use::kFrozen, machine.compute, machine.device);
  Model student =
      load_model(args.student, ParameterStore::Use::kTrained, machine.compute, machine.device);
  TrainBatch batch;
  batch.tokens = batch_ids(args, teacher.config.vocab_size);
  for (int64_t row = 0; row <= args.rows; ++row) {
    batch.offsets.push_back(row * args.sequence_length);
  }
  batch.rows = args.rows;
  const ForwardBackward step = kl_step(student.weights, teacher.weights, machine);
  const int64_t tokens = batch.tokens.numel();
  std::vector<double> seconds;
  json::array times, losses;
  for (int64_t i = 0; i < args.warmup + args.steps; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const at::Tensor loss = step(batch, tokens);
    update(*student.store, i + 1);
    losses.push_back(loss[0].item<double>());  // waits for the device
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    if (i < args.warmup) continue;
    seconds.push_back(time.count());
    times.push_back(time.count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size()) / 2,
                   seconds.end());
  const double median = seconds[seconds.size() / 2];
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double flops =
      double(tokens) * distill_flops(teacher.config, student.config, args.sequence_length);
  const double sgemm = measure_sgemm_gflops(machine);
  return {{"device", machine.device_name},
          {"tokens_per_second", double(tokens) / median},
          {"seconds", times},
          {"loss", losses},
          {"flops", flops},
          {"sgemm_gflops", sgemm},
          {"share_of_sgemm", flops / median / (sgemm * 1e9)},
          {"peak_memory_bytes", usage.ru_maxrss * 1024}};
}

}  // namespace halo
