// What several ranks do with the parameters that they have between them while a model runs: a
// layer's weights are fetched from all before it is used, where each keeps a part of them alone,
// and its gradient is summed over the ranks when its backward is done. On a GPU both happen beside
// what is computed, the fetching a layer ahead.
//
// A rank that has all weights adds up a step's micro-batches in a gradient of its own, of which the
// ranks' sum is taken in the last one. Where weights are fetched no rank has a whole gradient:
// every micro-batch is summed over the ranks, then added. So the two give the same bits where a
// rank has one micro-batch a step; else their sums have another order.
//
// What is fetched, and its gradient, are views of tensors that have memory only while their layer
// is used (Rajbhandari et al. 2020, arXiv 1910.02054, stage 3).
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "halo/runtime/communicator.h"
#include "halo/runtime/side_stream.h"

namespace halo {

class LayerSharing {
 public:
  // The parameters of a layer, or some that belong to none. All flat; `size` divides by the ranks,
  // in whose order its equal parts are.
  struct Group {
    int64_t layer = -1;  // -1: of none; its weights are always there
    int64_t size = 0;
    at::Tensor compute;      // [size] all weights; undefined: they are fetched
    at::Tensor own_compute;  // [size / ranks] this rank's of them, where they are fetched
    // fp32, of a step; neither: frozen
    at::Tensor gradient;      // [size] this rank's, in whose own part the ranks' sum comes
    at::Tensor gradient_sum;  // [size / ranks] where weights are fetched: its part of the sum
  };
  LayerSharing(Communicator& ranks, at::Device device, at::ScalarType compute,
               std::vector<Group> groups);
  LayerSharing(const LayerSharing&) = delete;

  // [size] weights of a group, and what a micro-batch adds its gradient to, fp32. To take views of.
  const at::Tensor& compute(size_t group) const { return groups_[group].compute; }
  const at::Tensor& gradient(size_t group) const { return groups_[group].gradient; }

  // Whether layers' weights are fetched.
  bool fetches() const { return weights_[0].memory.defined(); }

  // Before a step's micro-batches; its gradients, or gradient sums, are 0.
  void begin_step(int64_t micro_batches);
  // Around each of them. After end() of the last one (of each, where weights are fetched) the
  // gradients are summed over the ranks, in order of rank. `recorded`: what a GPU has recorded is
  // launched, in which no layer is acquired: all are summed behind it, to the same bits. Not where
  // weights are fetched.
  void begin(bool recorded);
  void end();

  // Around the use of a layer, forward or backward. `gradient`: it will be run backward; where
  // gradients are summed, its own is at its release. `next`: the layer that will be used after it;
  // any other number: none. A layer that there is not: nothing.
  void acquire(int64_t layer, int64_t next, bool gradient);
  void release(int64_t layer);

  // After this rank's part of the weights got other values: all ranks get them, before their next
  // use within a micro-batch or behind settle().
  void give_out(size_t group);
  // What was fetched is fetched anew: where all ranks pass and one of them may have nothing yet, so
  // that all ask for the same.
  void forget();
  // What is computed from now on finds all sums and weights that were under way.
  void settle() const;

 private:
  struct Part : Group {
    at::Tensor gradient_memory;  // of one that belongs to no layer; 0 between micro-batches
    std::optional<DeviceEvent> given_out;
  };
  // Memory that layers use one after another.
  struct Buffer {
    at::Tensor memory;
    int64_t group = -1;    // whose values it has; of weights also when they are not in use
    int64_t last_use = 0;  // counted
    std::optional<DeviceEvent> ready;  // weights: fetched; gradients: summed
  };

  Part* find(int64_t layer);
  at::Tensor own(const at::Tensor& all) const;
  Buffer& fetch(Part& part);
  void sum(Part& part);
  template <class Work>
  DeviceEvent beside(Work work);

  Communicator& ranks_;
  const at::Device device_;
  const SideStream side_;
  std::vector<Part> groups_;
  std::vector<int64_t> of_layer_;  // group of a layer; -1: there is none
  std::array<Buffer, 2> weights_, gradients_;
  Part* in_use_ = nullptr;
  bool goes_back_ = false;  // what is in use
  bool is_recorded_ = false;
  int64_t micro_batches_left_ = 0;  // of the step, behind this one
  int64_t uses_ = 0;
  std::optional<DeviceEvent> rest_ready_;  // all gradient_memory is 0 again
  std::optional<DeviceEvent> last_;        // of what is done beside
};

}  // namespace halo
