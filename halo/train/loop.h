// The training loop: batches in, gradients into the arenas, clipped AdamW, metrics, checkpoints. It
// knows no stage: what is trained and on which loss comes in as functions.
//
// A step reads nothing back from the device. Norm, clip factor and the decision to skip a
// non-finite update are made there; metrics are read while the next step runs.
//
// Where there are several ranks, each runs the loop on its share of a step's rows; what is logged,
// and whether an update is left out, is of all of them. Files are the first rank's, but for the
// values that each keeps for itself.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "halo/base/json.h"
#include "halo/data/loader.h"
#include "halo/kernels/common/sequences.h"
#include "halo/model/parameters.h"
#include "halo/train/checkpoint.h"
#include "halo/train/settings.h"

namespace halo {

struct TrainJob {
  std::string stage;                // "align": in messages, manifest and metrics
  std::string title;                // of the progress line: "align (stage 2 of 6)"
  std::filesystem::path directory;  // gets step-N/, metrics.jsonl and events.jsonl
  TrainRecipe recipe;
  json::object objective;  // settings of the loss, beside `recipe` in a checkpoint's record
  uint64_t seed = 0;
  Kernels kernels = Kernels::kFast;  // for the manifest
  std::string data_id;               // what the data is (hashes); a resume with another is refused
  ParameterStore* store = nullptr;   // trained, by its ranks; they have the same values

  // Rows first_row .. first_row+rows-1 of update `step` (0 .. steps-1), on the host. A pure
  // function, called ahead of time on another thread (and for one batch past the last step).
  std::function<TrainBatch(int64_t step, int64_t first_row, int64_t rows)> data;
  // Where what a step trains on depends on its weights too: what becomes of the batches of this
  // rank, the first of which begins with row `first_row` of the step, before they are counted.
  // None: they stay. Weights and batches of the step determine it, so that a resume gives the same.
  std::function<void(int64_t step, int64_t first_row, std::vector<TrainBatch>& batches)> complete;
  // Counted tokens of a micro-batch: what the loss is divided by.
  std::function<int64_t(const TrainBatch&)> count;
  // Adds the gradient of (sum over the batch's counted tokens, or of this rank's part of them where
  // recipe.context_ranks share the batch) / step_count to store->grad(), which after a step's last
  // batch is summed over the ranks (LayerSharing), and returns, detached on the device, [1 +
  // extra_metrics.size()]: that quotient, then the extra metrics. Both are summed over a step's
  // micro-batches.
  std::function<at::Tensor(const TrainBatch&, int64_t step_count)> forward_backward;
  std::vector<std::string> extra_metrics;  // keys of metrics.jsonl, "layer_3"
  SavedModel model;                        // of checkpoints
  bool async_checkpoints = false;          // those before the last one are written behind the steps
};

struct TrainResult {
  int64_t steps = 0, skipped = 0;
  double first_loss = 0, last_loss = 0;  // medians of the first and the last 20 steps
  double seconds = 0;                    // of training, all resumes together
  std::filesystem::path checkpoint;      // the last one
};

// Runs to the end of the recipe, from the newest valid checkpoint in job.directory if there is one
// (a finished job returns at once). Weights, moments and metrics other than times are bit-identical
// to those of an unbroken run on the same device and thread count.
//
// metrics.jsonl: {"step", "tokens", "loss", "grad_norm", "lr", "skipped", extras...,
// "tokens_per_second", "data_wait", "seconds"}, loss and norm null where not finite. events.jsonl:
// resumes, saves and those that failed, skipped updates with their batch position, warnings.
//
// Throws Stopped after a signal to any rank (state saved) and Error, naming the last good
// checkpoint, when 10 updates in a row were not finite or the run diverged, and where a checkpoint
// cannot be written; with async_checkpoints the third in a row that cannot, or the last one. Only
// the first rank has figures in its result.
TrainResult train(const TrainJob& job);

}  // namespace halo
