// Clipping and AdamW over the arenas.
#include "halo/train/optimizer.h"

#include <map>
#include <string>

#include "ATen/ATen.h"
#include "halo/kernels/adamw/adamw.h"

namespace halo {
namespace {

constexpr double kClipEpsilon = 1e-6;

// "model.layers.12." of "model.layers.12.mlp.up_proj.weight"; "" where it belongs to no layer.
std::string layer_of(const std::string& name) {
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return "";
  return name.substr(0, name.find('.', kLayers.size()) + 1);
}

at::Tensor clip_factor(double clip, const at::Tensor& norm) {
  return (clip / (norm + kClipEpsilon)).clamp_max(1).to(at::kFloat);
}

// 1 where weight decay applies: matrices, not norms and biases.
at::Tensor make_decay_mask(ParameterStore& store) {
  at::Tensor mask = at::zeros_like(store.master());
  for (const ParameterSpec& spec : store.specs()) {
    if (spec.shape.size() >= 2) store.view(mask, spec.name).fill_(1);
  }
  return mask;
}

}  // namespace

Optimizer::Optimizer(ParameterStore& store, const TrainRecipe& recipe)
    : store_(store), recipe_(recipe) {
  if (recipe.weight_decay > 0) decay_mask_ = make_decay_mask(store);
  if (recipe.clip_mode == ClipMode::kGlobal) return;
  std::map<std::string, std::vector<Range>> layers;
  for (const ParameterSpec& spec : store.specs()) {
    std::vector<Range>& ranges = layers[layer_of(spec.name)];
    const int64_t begin = store.offset(spec.name), size = store.value(spec.name).numel();
    if (!ranges.empty() && ranges.back().begin + ranges.back().size == begin) {
      ranges.back().size += size;  // a stack
    } else {
      ranges.push_back({begin, size});
    }
  }
  for (auto& [name, ranges] : layers) layers_.push_back(std::move(ranges));
}

// Scales each layer's gradient in place; returns the square of the norm of all before that.
at::Tensor Optimizer::clip_layers() {
  at::Tensor total = at::zeros({}, store_.grad().options().dtype(at::kDouble));
  for (const std::vector<Range>& layer : layers_) {
    at::Tensor square = at::zeros_like(total);
    for (const Range& range : layer) {
      square += squared_norm(store_.grad().narrow(0, range.begin, range.size));
    }
    const at::Tensor factor = clip_factor(recipe_.clip, square.sqrt());
    for (const Range& range : layer) {
      store_.grad().narrow(0, range.begin, range.size).mul_(factor);
    }
    total += square;
  }
  return total;
}

Optimizer::Update Optimizer::step(int64_t step, double learning_rate, const at::Tensor& loss) {
  at::NoGradGuard no_grad;
  AdamWStep args{.learning_rate = learning_rate,
                 .beta1 = recipe_.beta1,
                 .beta2 = recipe_.beta2,
                 .eps = recipe_.eps,
                 .weight_decay = recipe_.weight_decay,
                 .step = step};
  // With several ranks the gradient arena is summed over them here.
  at::Tensor norm;
  if (layers_.empty()) {
    norm = squared_norm(store_.grad()).sqrt();
    args.grad_scale = clip_factor(recipe_.clip, norm);
  } else {
    norm = clip_layers().sqrt();
    args.grad_scale = at::ones({}, store_.grad().options());
  }
  args.apply = at::isfinite(norm).logical_and(at::isfinite(loss)).to(at::kFloat);
  at::Tensor compute;
  if (!store_.compute().is_same(store_.master())) compute = store_.compute();
  adamw_step(store_.master(), store_.grad(), store_.moment1(), store_.moment2(), compute,
             decay_mask_, args);
  return {norm, args.apply};
}

}  // namespace halo
