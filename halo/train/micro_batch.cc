#include "halo/train/micro_batch.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <utility>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/lightning/lightning.h"
#include "halo/model/layer_sharing.h"
#include "halo/runtime/graph_cache.h"

namespace halo {
namespace {

// Where a layer's weights times the tokens are fewer, its kernels, forward and backward, take less
// time than their launches: on an H200 some 30 of them at 35 us.
constexpr double kLaunchesDominate = 1e11;

double elements_of(const LayerWeights& layer) {
  const auto of = [](const Weight& w) {
    return w.defined() ? static_cast<double>(w.value.numel()) : 0.0;
  };
  const auto* attention = std::get_if<AttentionWeights>(&layer.mixer);
  const double stacked = attention ? of(attention->qkvg) + of(attention->biased_gate)
                                   : of(std::get<LightningWeights>(layer.mixer).qkvz);
  const double out = std::visit([&](const auto& mixer) { return of(mixer.o_proj); }, layer.mixer);
  return stacked + out + of(layer.gate_up) + of(layer.down);
}

// Whether the form that it runs on a GPU leaves the sequences' offsets on the device.
bool can_be_recorded(const LayerWeights& layer) {
  const auto* lightning = std::get_if<LightningWeights>(&layer.mixer);
  return !lightning || (has_lightning_kernels(lightning->head_dim) && !lightning->decay.defined());
}

Batch with_settings(Batch batch, const Machine& machine) {
  batch.kernels = machine.kernels;
  batch.deterministic = machine.deterministic;
  batch.recompute_layers = machine.activation_checkpointing;
  return batch;
}

LossInputs to_inputs(Batch batch, const TrainBatch& data, int64_t step_count,
                     const Machine& machine) {
  const auto sent = [&](const at::Tensor& x) {
    return x.defined() ? to_device(x, machine.device) : x;
  };
  return {std::move(batch), sent(data.targets), sent(data.token_weights),
          at::full({}, static_cast<double>(step_count),
                   at::TensorOptions().dtype(at::kDouble).device(machine.device))};
}

// This rank's part of a batch that the group shares.
LossInputs part_inputs(const TrainBatch& whole, int64_t step_count, const Machine& machine,
                       const ContextGroup& group) {
  ContextPart part{group, Sequences(whole.offsets, machine.device)};
  const int64_t begin = part.begin(), count = part.tokens();
  HALO_CHECK(count * group.size == whole.tokens.numel(), "micro-batch: {} tokens for {} ranks",
             whole.tokens.numel(), group.size);
  const auto mine = [&](const at::Tensor& x) { return x.narrow(0, begin, count); };
  Batch batch = make_batch(mine(whole.tokens), offsets_within(whole.offsets, begin, count),
                           mine(positions_of(whole.offsets)), machine.device);
  batch.part = std::make_shared<const ContextPart>(std::move(part));
  const TrainBatch data{.targets = mine(whole.targets), .token_weights = mine(whole.token_weights)};
  return to_inputs(with_settings(std::move(batch), machine), data, step_count, machine);
}

// What is recorded has a shape. Documents change the number of sequences and the longest of them
// from batch to batch, so both are rounded up to a power of two: the sequences by empty ones, the
// longest to no more than all tokens, which is the most that attention's kernels take.
struct Shape {
  int64_t tokens, sequences, max_length;
  auto operator<=>(const Shape&) const = default;
};

int64_t power_of_two(int64_t n) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(n)));
}

Shape shape_of(const TrainBatch& data) {
  const Sequences sequences(data.offsets, at::kCPU);
  HALO_CHECK(sequences.num_tokens() == data.tokens.numel(),
             "micro-batch: {} tokens, offsets end at {}", data.tokens.numel(),
             sequences.num_tokens());
  return {sequences.num_tokens(), power_of_two(sequences.count()),
          std::min(sequences.num_tokens(), power_of_two(sequences.max_length()))};
}

LossInputs to_shape(const Shape& shape, const TrainBatch& data, int64_t step_count,
                    const Machine& machine) {
  std::vector<int64_t> offsets = data.offsets;
  offsets.resize(shape.sequences + 1, shape.tokens);
  const auto sent = [&](const at::Tensor& x) { return to_device(x, machine.device); };
  const Sequences sequences(sent(at::tensor(offsets, at::kInt)), shape.tokens, shape.max_length);
  Batch batch = make_batch(sent(data.tokens), sent(positions_of(offsets)), sequences);
  return to_inputs(with_settings(std::move(batch), machine), data, step_count, machine);
}

// The values of `from` into the tensors of `to`.
void overwrite(const LossInputs& to, const LossInputs& from) {
  const auto copy = [](const at::Tensor& to, const at::Tensor& from) {
    if (to.defined()) to.copy_(from);
  };
  copy(to.batch.tokens, from.batch.tokens);
  copy(to.batch.positions, from.batch.positions);
  copy(to.batch.sequences.offsets_i32(), from.batch.sequences.offsets_i32());
  copy(to.targets, from.targets);
  copy(to.token_weights, from.token_weights);
  copy(to.step_count, from.step_count);
}

// A loss at such shapes, recorded unless machine.cuda_graphs says no.
class LossOfShapes {
 public:
  LossOfShapes(Loss loss, const Machine& machine)
      : loss_(std::move(loss)),
        machine_(machine),
        graphs_(
            machine.device,
            [this](const LossInputs& inputs) {
              LossInputs read = inputs;
              read.batch = with_new_cache(std::move(read.batch));
              return loss_(read);
            },
            overwrite) {}

  at::Tensor run(const TrainBatch& data, int64_t step_count) {
    const Shape shape = shape_of(data);
    const LossInputs inputs = to_shape(shape, data, step_count, machine_);
    return machine_.cuda_graphs ? graphs_.run(shape, inputs) : loss_(inputs);
  }

 private:
  const Loss loss_;
  const Machine machine_;
  GraphCache<Shape, LossInputs> graphs_;
};

}  // namespace

Batch to_batch(const TrainBatch& batch, const Machine& machine) {
  return with_settings(make_batch(batch.tokens, batch.offsets, machine.device), machine);
}

ForwardBackward forward_backward_of(Loss loss, const LossWeights& weights, const Machine& machine) {
  const std::vector<LayerWeights>& layers = weights.layers;
  const std::shared_ptr<LayerSharing> trained = weights.trained;
  const ContextGroup group = weights.group;
  std::shared_ptr<LossOfShapes> of_shapes;
  if (machine.device.is_cuda() && group.size == 1 && !(trained && trained->fetches()) &&
      std::all_of(layers.begin(), layers.end(), can_be_recorded)) {
    of_shapes = std::make_shared<LossOfShapes>(loss, machine);
  }
  double largest = 0;
  for (const LayerWeights& layer : layers) largest = std::max(largest, elements_of(layer));
  return [loss = std::move(loss), of_shapes, largest, machine, trained, group](
             const TrainBatch& data, int64_t step_count) {
    const bool is_recorded =
        of_shapes && largest * static_cast<double>(data.tokens.numel()) < kLaunchesDominate;
    if (trained) trained->begin(is_recorded);
    const auto inputs = [&] {
      return group.size > 1 ? part_inputs(data, step_count, machine, group)
                            : to_inputs(to_batch(data, machine), data, step_count, machine);
    };
    const at::Tensor figures = is_recorded ? of_shapes->run(data, step_count) : loss(inputs());
    if (trained) trained->end();
    return figures;
  };
}

}  // namespace halo
