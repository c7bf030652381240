#include "halo/stages/losses.h"

#include "ATen/ATen.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/kernels/linear_kl/linear_kl.h"
#include "halo/kernels/squared_error/squared_error.h"
#include "halo/model/layer_sharing.h"
#include "torch/csrc/autograd/autograd.h"

namespace halo {

namespace {

// What a loss runs that trains the student towards the teacher.
LossWeights weights_of(const DecoderWeights& student, const DecoderWeights& teacher) {
  LossWeights weights{student.layers, student.sharing};
  weights.layers.insert(weights.layers.end(), teacher.layers.begin(), teacher.layers.end());
  return weights;
}

}  // namespace

int64_t count_tokens(const TrainBatch& batch) {
  return batch.tokens.numel();
}

int64_t count_weighted(const TrainBatch& batch) {
  return batch.token_weights.gt(0).sum().item<int64_t>();
}

int64_t count_targets(const TrainBatch& batch) {
  return batch.targets.ne(kIgnoreTarget).sum().item<int64_t>();
}

ForwardBackward cross_entropy_step(const DecoderWeights& weights, const Machine& machine,
                                   const ContextGroup& group) {
  const Loss loss = [weights](const LossInputs& in) {
    const at::Tensor hidden = decode(weights, in.batch);
    const at::Tensor loss =
        linear_cross_entropy(hidden, weights.head, in.targets, in.token_weights) /
        in.step_count.to(at::kFloat);
    loss.backward();
    return loss.detach().reshape({1});
  };
  return forward_backward_of(loss, {weights.layers, weights.sharing, group}, machine);
}

at::Tensor summed_divergence(Divergence divergence, const at::Tensor& hidden, const Weight& head,
                             const at::Tensor& teacher_hidden, const at::Tensor& teacher_head,
                             const at::Tensor& weights) {
  return divergence == Divergence::kReverse
             ? linear_reverse_kl(hidden, head, teacher_hidden, teacher_head, weights)
             : linear_kl(hidden, head, teacher_hidden, teacher_head, weights);
}

ForwardBackward on_policy_step(const DecoderWeights& student, const DecoderWeights& teacher,
                               const Machine& machine, Divergence divergence) {
  const Loss loss = [student, teacher, divergence](const LossInputs& in) {
    at::Tensor teacher_hidden;
    {
      at::NoGradGuard no_grad;
      teacher_hidden = decode(teacher, in.batch);
    }
    const at::Tensor hidden = decode(student, in.batch);
    const at::Tensor loss = summed_divergence(divergence, hidden, student.head, teacher_hidden,
                                              teacher.head.value, in.token_weights) /
                            in.step_count.to(at::kFloat);
    loss.backward();
    return at::stack({loss.detach(), in.token_weights.gt(0).sum().to(at::kFloat)});
  };
  return forward_backward_of(loss, weights_of(student, teacher), machine);
}

ForwardBackward kl_step(const DecoderWeights& student, const DecoderWeights& teacher,
                        const Machine& machine, double cross_entropy_share) {
  const Loss loss = [student, teacher, cross_entropy_share](const LossInputs& in) {
    CrossEntropyMix mix;
    if (cross_entropy_share > 0) mix = {in.targets, cross_entropy_share};
    at::Tensor teacher_hidden;
    {
      at::NoGradGuard no_grad;
      teacher_hidden = decode(teacher, in.batch);
    }
    const at::Tensor hidden = decode(student, in.batch);
    const at::Tensor loss =
        linear_kl(hidden, student.head, teacher_hidden, teacher.head.value, in.token_weights, mix) /
        in.step_count.to(at::kFloat);
    loss.backward();
    return loss.detach().reshape({1});
  };
  return forward_backward_of(loss, weights_of(student, teacher), machine);
}

ForwardBackward gate_step(const DecoderWeights& attention, const DecoderWeights& recurrent,
                          const DecoderWeights& teacher, const Weight& logits, int64_t budget,
                          const Machine& machine) {
  const Loss loss = [=](const LossInputs& in) {
    at::Tensor teacher_hidden;
    {
      at::NoGradGuard no_grad;
      teacher_hidden = decode(teacher, in.batch);
    }
    const at::Tensor leaf = logits.value.detach().requires_grad_(true);
    const at::Tensor gates = leaf.sigmoid();
    at::Tensor hidden = embed(recurrent, in.batch);
    for (int64_t layer = 0; layer < gates.size(0); ++layer) {
      const at::Tensor kept = decode_layers(attention, layer, layer + 1, hidden, in.batch);
      const at::Tensor swapped = decode_layers(recurrent, layer, layer + 1, hidden, in.batch);
      hidden = swapped + gates[layer] * (kept - swapped);
    }
    const at::Tensor kl = linear_kl(final_norm(recurrent, hidden), recurrent.head, teacher_hidden,
                                    teacher.head.value, in.token_weights);
    // The budget counts once a step, however many micro-batches it has.
    const at::Tensor tokens = at::full_like(in.step_count, double(in.batch.tokens.size(0)));
    const at::Tensor share = (tokens / in.step_count).to(at::kFloat);
    const at::Tensor loss =
        kl / in.step_count.to(at::kFloat) + share * (gates.sum() - double(budget)).square();
    logits.grad.add_(torch::autograd::grad({loss}, {leaf}).front());
    return at::cat({loss.detach().reshape({1}), share * gates.detach()});
  };
  LossWeights weights{teacher.layers, nullptr};
  for (const DecoderWeights* run : {&attention, &recurrent})
    weights.layers.insert(weights.layers.end(), run->layers.begin(), run->layers.end());
  return forward_backward_of(loss, weights, machine);
}

ForwardBackward align_step(const std::vector<Mixer>& student, const ParameterStore& trained,
                           const DecoderWeights& teacher, const Machine& machine,
                           ClipMode clip_mode) {
  const double divisor = clip_mode == ClipMode::kPerLayer ? 1 : static_cast<double>(student.size());
  const std::shared_ptr<LayerSharing> sharing = trained.layers();
  const Loss loss = [student, sharing, teacher, divisor](const LossInputs& in) {
    const auto layers = static_cast<int64_t>(student.size());
    at::Tensor figures = at::zeros({1 + layers}, in.step_count.options().dtype(at::kFloat));
    const at::Tensor elements =
        in.step_count * static_cast<double>(teacher.embedding.value.size(1));
    const at::Tensor scale = (2 / (elements * divisor)).to(at::kFloat).reshape({1});
    decode_visiting(
        teacher, in.batch, [&](int64_t layer, const at::Tensor& input, const at::Tensor& target) {
          at::AutoGradMode with_gradients(true);
          if (sharing) sharing->acquire(layer, layer + 1, /*gradient=*/true);
          const at::Tensor output = run_mixer(student[layer], teacher.eps, input, in.batch, layer);
          const SquaredError error = squared_error(output, target, scale);
          torch::autograd::backward({output}, {error.gradient});
          if (sharing) sharing->release(layer);
          figures[1 + layer] = error.sum / elements.to(at::kFloat);
        });
    figures[0] = figures.slice(0, 1).mean();
    return figures;
  };
  LossWeights weights{teacher.layers, sharing};
  for (const Mixer& mixer : student) weights.layers.push_back({.mixer = mixer});
  return forward_backward_of(loss, weights, machine);
}

}  // namespace halo
