#include "halo/stages/losses.h"

#include "ATen/ATen.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/kernels/linear_kl/linear_kl.h"
#include "torch/csrc/autograd/autograd.h"

namespace halo {

Batch to_batch(const TrainBatch& batch, const Machine& machine) {
  Batch out = make_batch(batch.tokens, batch.offsets, machine.device);
  out.form = machine.form;
  out.recompute_layers = machine.activation_checkpointing;
  return out;
}

int64_t count_tokens(const TrainBatch& batch) {
  return batch.tokens.numel();
}

int64_t count_targets(const TrainBatch& batch) {
  return batch.targets.ne(kIgnoreTarget).sum().item<int64_t>();
}

ForwardBackward cross_entropy_step(const DecoderWeights& weights, const Machine& machine) {
  return [=](const TrainBatch& data, int64_t step_count) {
    const at::Tensor hidden = decode(weights, to_batch(data, machine));
    const at::Tensor loss =
        linear_cross_entropy(hidden, weights.head, to_device(data.targets, machine.device),
                             to_device(data.weights, machine.device)) /
        static_cast<double>(step_count);
    loss.backward();
    return loss.detach().reshape({1});
  };
}

ForwardBackward kl_step(const DecoderWeights& student, const DecoderWeights& teacher,
                        const Machine& machine, double cross_entropy_share) {
  return [=](const TrainBatch& data, int64_t step_count) {
    const Batch batch = to_batch(data, machine);
    CrossEntropyMix mix;
    if (cross_entropy_share > 0) {
      mix = {to_device(data.targets, machine.device), cross_entropy_share};
    }
    at::Tensor teacher_hidden;
    {
      at::NoGradGuard no_grad;
      teacher_hidden = decode(teacher, batch);
    }
    const at::Tensor hidden = decode(student, batch);
    const at::Tensor loss = linear_kl(hidden, student.head, teacher_hidden, teacher.head.value,
                                      to_device(data.weights, machine.device), mix) /
                            static_cast<double>(step_count);
    loss.backward();
    return loss.detach().reshape({1});
  };
}

ForwardBackward align_step(const std::vector<Mixer>& student, const DecoderWeights& teacher,
                           const Machine& machine) {
  return [=](const TrainBatch& data, int64_t step_count) {
    const Batch batch = to_batch(data, machine);
    const auto layers = static_cast<int64_t>(student.size());
    at::Tensor figures = at::zeros({1 + layers}, at::TensorOptions().device(machine.device));
    decode_visiting(
        teacher, batch, [&](int64_t layer, const at::Tensor& input, const at::Tensor& target) {
          const double elements = double(step_count) * double(target.size(1));
          at::AutoGradMode with_gradients(true);
          const at::Tensor output = run_mixer(student[layer], teacher.eps, input, batch, layer);
          const at::Tensor difference = output.detach() - target;
          torch::autograd::backward({output}, {difference * (2 / (elements * double(layers)))});
          figures[1 + layer] = difference.to(at::kFloat).square().sum() / elements;
        });
    figures[0] = figures.slice(0, 1).mean();
    return figures;
  };
}

}  // namespace halo
