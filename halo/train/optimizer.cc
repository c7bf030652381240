// Clipping and AdamW over the arenas.
#include "halo/train/optimizer.h"

#include "ATen/ATen.h"
#include "halo/kernels/adamw/adamw.h"
#include "halo/model/layer_sharing.h"

namespace halo {
namespace {

constexpr double kClipEpsilon = 1e-6;

at::Tensor clip_factor(double clip, const at::Tensor& norm) {
  return (clip / (norm + kClipEpsilon)).clamp_max(1).to(at::kFloat);
}

at::Tensor kept(const at::Tensor& arena, const ParameterStore::Group& group) {
  return arena.narrow(0, group.kept.begin, group.kept.size);
}

// 1 where weight decay applies: matrices, not norms and biases. Of what the store keeps.
at::Tensor make_decay_mask(ParameterStore& store) {
  at::Tensor mask = at::zeros_like(store.master());
  for (const ParameterSpec& spec : store.specs()) {
    if (spec.shape.size() < 2) continue;
    const ParameterStore::Piece piece = store.kept_piece(spec);
    mask.narrow(0, piece.in_arena, piece.size).fill_(1);
  }
  return mask;
}

// [groups] of each group its layer's, or for those of no layer of all of them together.
at::Tensor by_layer(const at::Tensor& squares, const std::vector<ParameterStore::Group>& groups) {
  std::vector<at::Tensor> out, rest;
  for (size_t g = 0; g < groups.size(); ++g) {
    out.push_back(squares[static_cast<int64_t>(g)]);
    if (groups[g].layer < 0) rest.push_back(out.back());
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].layer < 0) out[g] = at::stack(rest).sum();
  }
  return at::stack(out);
}

}  // namespace

Optimizer::Optimizer(ParameterStore& store, const TrainRecipe& recipe)
    : store_(store), recipe_(recipe) {
  if (recipe.weight_decay > 0) decay_mask_ = make_decay_mask(store);
}

// [groups] fp64: of each the square of its gradient's norm.
at::Tensor Optimizer::squares() const {
  std::vector<at::Tensor> own;
  for (const ParameterStore::Group& group : store_.groups()) {
    const at::Tensor gradient = store_.summed_gradient(group);
    own.push_back(gradient.numel() > 0 ? squared_norm(gradient)
                                       : at::zeros({}, gradient.options().dtype(at::kDouble)));
  }
  return store_.ranks().sum(at::stack(own));
}

// AdamW on what the store keeps, a group at a time, of which all ranks get the new weights.
// `factors`: fp32 of the groups' gradients, one for all or [groups].
void Optimizer::update(AdamWStep args, const at::Tensor& factors) {
  const std::vector<ParameterStore::Group>& groups = store_.groups();
  for (size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].kept.size == 0) continue;  // another rank's
    at::Tensor master = kept(store_.master(), groups[g]), m = kept(store_.moment1(), groups[g]),
               v = kept(store_.moment2(), groups[g]), copy = store_.kept_compute(groups[g]);
    args.grad_scale = factors.dim() == 0 ? factors : factors[static_cast<int64_t>(g)];
    const at::Tensor gradient =
        store_.keeps_all() ? kept(store_.grad(), groups[g]) : store_.summed_gradient(groups[g]);
    adamw_step(master, gradient, m, v, copy,
               decay_mask_.defined() ? kept(decay_mask_, groups[g]) : decay_mask_, args);
    if (!store_.keeps_all() && store_.layers()) store_.layers()->give_out(g);
  }
}

Optimizer::Update Optimizer::step(int64_t step, double learning_rate, const at::Tensor& loss) {
  at::NoGradGuard no_grad;
  if (store_.layers()) store_.layers()->settle();
  const bool is_alone = store_.ranks().size() == 1;
  at::Tensor norm, factors;
  if (is_alone && recipe_.clip_mode == ClipMode::kGlobal) {
    norm = squared_norm(store_.grad()).sqrt();
    factors = clip_factor(recipe_.clip, norm);
  } else {
    const at::Tensor squares = this->squares();
    norm = squares.sum().sqrt();
    factors = clip_factor(recipe_.clip, recipe_.clip_mode == ClipMode::kGlobal
                                            ? norm
                                            : by_layer(squares, store_.groups()).sqrt());
  }
  if (!is_alone && store_.keeps_all()) {
    for (const ParameterStore::Group& group : store_.groups()) {
      store_.ranks().all_gather(kept(store_.grad(), group));
    }
  }
  const at::Tensor apply = at::isfinite(norm).logical_and(at::isfinite(loss)).to(at::kFloat);
  update({.learning_rate = learning_rate,
          .beta1 = recipe_.beta1,
          .beta2 = recipe_.beta2,
          .eps = recipe_.eps,
          .weight_decay = recipe_.weight_decay,
          .step = step,
          .grad_scale = {},
          .apply = apply},
         factors);
  return {norm, apply};
}

}  // namespace halo
