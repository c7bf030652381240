// Tasks asked of a model and of all models that differ from it in one layer's mixer, in one go:
// what lies below the swapped layer is computed once (trunk.h), of what is scored, and of what is
// written as far as the model itself writes the same.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "halo/eval/language_model.h"
#include "halo/eval/tasks/task.h"

namespace halo {

// What a sweep cost, the model's own answers included, and what the same decoder calls of the
// swapped models, each whole, would have.
struct SweepCost {
  double layer_flops = 0, whole_layer_flops = 0;  // of products with layers' weights
  double head_flops = 0, whole_head_flops = 0;    // with the head's
  double seconds = 0, whole_seconds = 0;          // the second by what the model itself took

  SweepCost& operator+=(const SweepCost& more);
  double flops() const { return layer_flops + head_flops; }
  double whole_flops() const { return whole_layer_flops + whole_head_flops; }
};

class LayerSweep {
 public:
  // `mixers[i]` takes the place of layer i's. `like` is of the model whose weights are `weights`.
  // `max_bytes`: of what is kept of the model's own calls.
  LayerSweep(const LanguageModel& like, std::shared_ptr<const DecoderWeights> weights,
             std::vector<Mixer> mixers, int64_t max_bytes = int64_t{1} << 30);

  // The outcome of every item: of the model with layer i swapped [i], and of itself, the last.
  // `on_items` sees the number of items done. Called by all ranks, which deal the items among
  // themselves, as many as are asked together: the same bits whatever their number, on each of
  // them.
  std::vector<std::vector<Outcome>> run(const Task& task,
                                        const std::function<void(size_t done)>& on_items = {},
                                        Communicator& ranks = one_rank());

  const SweepCost& cost() const { return cost_; }  // of all ranks

 private:
  // Of items asked together, by model; adds to `cost`.
  std::vector<std::vector<Answers>> ask(std::span<const TaskItem> items, SweepCost& cost) const;
  // Ends of runs of items that are asked together.
  std::vector<size_t> pieces_of(const Task& task) const;
  std::shared_ptr<const DecoderWeights> swapped(size_t layer) const;

  const LanguageModel& like_;
  std::shared_ptr<const DecoderWeights> weights_;
  std::vector<Mixer> mixers_;
  int64_t max_tokens_;
  SweepCost cost_;
};

}  // namespace halo
