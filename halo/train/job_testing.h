// A training job small enough to check by hand, shared by this part's tests: two tables of 8
// values, looked up by token; the loss is their squared distance from a target.
#pragma once

#include <gtest/gtest.h>

#include <csignal>
#include <limits>
#include <map>
#include <string>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/random.h"
#include "halo/model/layer_sharing.h"
#include "halo/train/loop.h"
#include "tests/testing.h"

namespace halo::test {

class ToyJob {
 public:
  explicit ToyJob(const std::filesystem::path& directory, at::ScalarType compute = at::kFloat,
                  const Sharing& sharing = {})
      : store({{"model.layers.0.table", {8}}, {"model.layers.1.table", {2, 4}}},
              ParameterStore::Use::kTrained, compute, at::kCPU, sharing) {
    job.stage = "toy";
    job.title = "toy";
    job.directory = directory;
    job.recipe = {.tokens = 8 * 24,
                  .sequence_length = 4,
                  .tokens_per_step = 24,
                  .micro_batch_rows = 4,  // 6 rows: one whole micro-batch and a short one
                  .learning_rate = 0.1,
                  .warmup_steps = 2,
                  .checkpoint_every = 2};
    job.seed = 7;
    job.data_id = "toy data";
    job.store = &store;
    job.extra_metrics = {"first", "second"};
    job.data = [](int64_t step, int64_t first_row, int64_t rows) {
      TrainBatch batch;
      batch.tokens = at::empty({rows * 4}, at::kLong);
      const Random random(7, "toy", step);
      for (int64_t i = 0; i < rows * 4; ++i) {
        batch.tokens[i] = random.below(first_row * 4 + i, 8);
      }
      batch.targets = at::full({rows * 4}, step + 1, at::kLong);  // tells the loss which step it is
      batch.rows = rows;
      return batch;
    };
    job.count = [](const TrainBatch& batch) { return batch.tokens.numel(); };
    job.forward_backward = [this](const TrainBatch& batch, int64_t count) {
      return loss(batch, count);
    };
    job.model.dtype = compute == at::kFloat ? DType::kF32 : DType::kBF16;
    job.model.write_side_files = [](const std::filesystem::path& folder) {
      write_file(folder / "config.json", "{}");
    };
  }
  ToyJob(const ToyJob&) = delete;

  ParameterStore store;
  TrainJob job;
  std::map<int64_t, double> gradient_factor;  // by step; NaN makes a bad step
  int64_t signal_at = 0;                      // SIGTERM to itself during this step

 private:
  at::Tensor loss(const TrainBatch& batch, int64_t count) {
    const int64_t step = batch.targets[0].item<int64_t>();
    if (step == signal_at) raise(SIGTERM);
    const double factor = gradient_factor.count(step) ? gradient_factor.at(step) : 1;
    std::vector<at::Tensor> losses;
    const std::shared_ptr<LayerSharing>& layers = store.layers();
    if (layers) layers->begin(/*recorded=*/false);
    for (const int64_t layer : {0, 1}) {
      const Weight table = store.weight(fmt::format("model.layers.{}.table", layer));
      if (layers) layers->acquire(layer, layer + 1, /*gradient=*/true);
      const at::Tensor error =
          table.value.detach().to(at::kFloat).reshape({-1}).index_select(0, batch.tokens) -
          batch.tokens.to(at::kFloat);
      table.grad.view({-1}).index_add_(0, batch.tokens, error * (2 * factor / count));
      losses.push_back(error.square().sum() / count * (factor != factor ? factor : 1));
      if (layers) layers->release(layer);
    }
    if (layers) layers->end();
    return at::stack({losses[0] + losses[1], losses[0], losses[1]});
  }
};

inline std::vector<json::object> read_lines(const std::filesystem::path& path) {
  std::vector<json::object> lines;
  const std::string text = read_file(path);
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    lines.push_back(parse_json(text.substr(begin, end - begin), "metrics").as_object());
  }
  return lines;
}

// Of a checkpoint: the model, and what training goes on from.
inline constexpr const char* kStateFiles[] = {"model.safetensors", "state/masters.safetensors",
                                              "state/moment1.safetensors",
                                              "state/moment2.safetensors"};

// Everything a run leaves that is to be the same whether it was interrupted or not, and where ranks
// give the same bits.
inline std::string fingerprint(const std::filesystem::path& run, int64_t last_step) {
  std::string text;
  for (json::object& line : read_lines(run / "metrics.jsonl")) {
    line.erase("seconds");
    line.erase("tokens_per_second");
    line.erase("data_wait");
    text += json::serialize(line) + "\n";
  }
  const std::filesystem::path last = run / fmt::format("step-{}", last_step);
  for (const char* file : kStateFiles) text += fmt::format("{} {}\n", file, hash_file(last / file));
  return text;
}

// A folder of its own for each test, shared with the children of its death tests.
class TrainTest : public ::testing::Test {
 protected:
  TrainTest() {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    directory_.share_with_children();
  }

  Folder directory_;
};

}  // namespace halo::test
