#include "halo/stages/losses.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
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

namespace {

// What stage 1 makes of the teacher's layers in a micro-batch.
class MixerErrors {
 public:
  // Of a mean over layers with this divisor. All must outlive this.
  MixerErrors(const std::vector<Mixer>& student, const DecoderWeights& teacher, const Batch& batch,
              const at::Tensor& step_count, double divisor)
      : student_(student),
        eps_(teacher.eps),
        batch_(batch),
        elements_(step_count * static_cast<double>(teacher.embedding.value.size(1))),
        scale_((2 / (elements_ * divisor)).to(at::kFloat).reshape({1})),
        figures_(at::zeros({1 + std::ssize(student)}, step_count.options().dtype(at::kFloat))) {}

  // Runs a layer's mixer forward and back: `input` and `target` [N, D], the teacher's.
  void add(int64_t layer, const at::Tensor& input, const at::Tensor& target) {
    at::AutoGradMode with_gradients(true);
    const at::Tensor output = run_mixer(student_[layer], eps_, input, batch_, layer);
    const SquaredError error = squared_error(output, target, scale_);
    torch::autograd::backward({output}, {error.gradient});
    figures_[1 + layer] = error.sum / elements_.to(at::kFloat);
  }

  // The mean over all layers, with 0 of those that were not added, then each.
  at::Tensor figures() {
    figures_[0] = figures_.slice(0, 1).mean();
    return figures_;
  }

 private:
  const std::vector<Mixer>& student_;
  const double eps_;
  const Batch& batch_;
  const at::Tensor elements_, scale_;
  at::Tensor figures_;
};

// This rank's of the rows that a group has together.
TrainBatch own_rows(const TrainBatch& whole, const ContextGroup& group) {
  HALO_CHECK(whole.rows % group.size == 0, "align: {} rows for {} ranks", whole.rows, group.size);
  const int64_t count = whole.tokens.numel() / group.size, begin = group.place() * count;
  TrainBatch own;
  own.tokens = whole.tokens.narrow(0, begin, count);
  own.offsets = offsets_within(whole.offsets, begin, count);
  own.rows = whole.rows / group.size;
  return own;
}

// Where ranks have layers of their own: of as many layers as there are ranks each gets one, with
// what all rows had there, as soon as the teacher has passed them.
ForwardBackward align_own_layers(const std::vector<Mixer>& student, const DecoderWeights& teacher,
                                 const Machine& machine, double divisor,
                                 const ContextGroup& group) {
  return [=](const TrainBatch& data, int64_t step_count) {
    const Batch whole = to_batch(data, machine);
    const at::Tensor count =
        at::full({}, static_cast<double>(step_count),
                 at::TensorOptions().dtype(at::kDouble).device(machine.device));
    MixerErrors errors(student, teacher, whole, count, divisor);
    const int64_t layers = std::ssize(student);
    std::vector<at::Tensor> passed;  // [2, n, D] input and output of each
    decode_visiting(teacher, to_batch(own_rows(data, group), machine),
                    [&](int64_t layer, const at::Tensor& input, const at::Tensor& target) {
                      passed.push_back(at::stack({input, target}));
                      if (std::ssize(passed) < group.size && layer + 1 < layers) return;
                      const int64_t own = layer + 1 - std::ssize(passed) + group.place();
                      passed.resize(group.size, passed.back());  // for ranks that get none
                      const at::Tensor all = group.ranks->all_to_all(at::stack(passed), group.size);
                      passed.clear();
                      if (own >= layers) return;
                      const auto of_all_rows = [&](int64_t which) {
                        return all.select(1, which).reshape({data.tokens.numel(), -1});
                      };
                      errors.add(own, of_all_rows(0), of_all_rows(1));
                    });
    return errors.figures();
  };
}

}  // namespace

ForwardBackward align_step(const std::vector<Mixer>& student, const ParameterStore& trained,
                           const DecoderWeights& teacher, const Machine& machine,
                           ClipMode clip_mode) {
  const double divisor = clip_mode == ClipMode::kPerLayer ? 1 : static_cast<double>(student.size());
  if (trained.has_layers_alone()) {
    return align_own_layers(student, teacher, machine, divisor,
                            {&trained.ranks(), trained.ranks().size()});
  }
  const std::shared_ptr<LayerSharing> sharing = trained.layers();
  const Loss loss = [student, sharing, teacher, divisor](const LossInputs& in) {
    MixerErrors errors(student, teacher, in.batch, in.step_count, divisor);
    decode_visiting(teacher, in.batch,
                    [&](int64_t layer, const at::Tensor& input, const at::Tensor& target) {
                      if (sharing) sharing->acquire(layer, layer + 1, /*gradient=*/true);
                      errors.add(layer, input, target);
                      if (sharing) sharing->release(layer);
                    });
    return errors.figures();
  };
  LossWeights weights{teacher.layers, sharing};
  for (const Mixer& mixer : student) weights.layers.push_back({.mixer = mixer});
  return forward_backward_of(loss, weights, machine);
}

}  // namespace halo
