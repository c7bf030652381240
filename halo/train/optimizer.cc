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

// 1 where weight decay applies: matrices, not norms and biases. Of what the store owns.
at::Tensor make_decay_mask(ParameterStore& store) {
  at::Tensor mask = at::zeros_like(store.master());
  for (const ParameterSpec& spec : store.specs()) {
    if (spec.shape.size() < 2) continue;
    const Range own =
        intersection({store.offset(spec.name), num_parameters({spec})}, store.owned());
    if (own.size > 0) mask.narrow(0, own.begin - store.owned().begin, own.size).fill_(1);
  }
  return mask;
}

Range all_of(ParameterStore& store) {
  return {0, store.grad().numel()};
}

}  // namespace

Optimizer::Optimizer(ParameterStore& store, const TrainRecipe& recipe, Communicator& ranks,
                     Shard shard)
    : store_(store),
      recipe_(recipe),
      ranks_(ranks),
      summed_(ranks.size() > 1 ? ranks.range(store.grad().numel()) : all_of(store)),
      grad_(store.grad()) {
  if (ranks.size() > 1) grad_ = store.padded(grad_, ranks.padded_size(grad_.numel()));
  if (shard == Shard::kOptimizer) store.own(summed_);
  if (recipe.weight_decay > 0) decay_mask_ = make_decay_mask(store);
  if (recipe.clip_mode == ClipMode::kGlobal) return;
  std::map<std::string, Ranges> layers;
  for (const ParameterSpec& spec : store.specs()) {
    Ranges& ranges = layers[layer_of(spec.name)];
    const int64_t begin = store.offset(spec.name), size = store.value(spec.name).numel();
    if (!ranges.empty() && ranges.back().end() == begin) {
      ranges.back().size += size;  // a stack
    } else {
      ranges.push_back({begin, size});
    }
  }
  for (auto& [name, ranges] : layers) layers_.push_back(std::move(ranges));
}

// Of what this rank has of these ranges.
at::Tensor Optimizer::square_of(const Ranges& ranges) const {
  at::Tensor square = at::zeros({}, grad_.options().dtype(at::kDouble));
  for (const Range& range : ranges) {
    const Range own = intersection(range, summed_);
    if (own.size > 0) square += squared_norm(grad_.narrow(0, own.begin, own.size));
  }
  return square;
}

// Scales each layer's gradient in place, as far as the store owns it; returns the square of the
// norm of all before that.
at::Tensor Optimizer::clip_layers() {
  std::vector<at::Tensor> own;
  for (const Ranges& layer : layers_) own.push_back(square_of(layer));
  const at::Tensor squares = ranks_.sum(at::stack(own));
  if (ranks_.size() > 1 && store_.owns_all()) ranks_.all_gather(grad_);
  at::Tensor total = at::zeros({}, squares.options());
  for (size_t i = 0; i < layers_.size(); ++i) {
    const at::Tensor square = squares[static_cast<int64_t>(i)];
    const at::Tensor factor = clip_factor(recipe_.clip, square.sqrt());
    for (const Range& range : layers_[i]) {
      const Range part = intersection(range, store_.owned());
      if (part.size > 0) grad_.narrow(0, part.begin, part.size).mul_(factor);
    }
    total += square;
  }
  return total;
}

// AdamW on what the store owns, whose new values go to all ranks.
void Optimizer::update(const AdamWStep& args) {
  const Range& own = store_.owned();
  const at::Tensor compute = store_.padded(store_.compute(), own.end());
  at::Tensor copy;
  if (compute.scalar_type() != at::kFloat) copy = compute.narrow(0, own.begin, own.size);
  adamw_step(store_.master(), grad_.narrow(0, own.begin, own.size), store_.moment1(),
             store_.moment2(), copy, decay_mask_, args);
  if (!store_.owns_all()) {
    ranks_.all_gather(store_.padded(store_.compute(), grad_.numel()));
  }
}

Optimizer::Update Optimizer::step(int64_t step, double learning_rate, const at::Tensor& loss) {
  at::NoGradGuard no_grad;
  AdamWStep args{.learning_rate = learning_rate,
                 .beta1 = recipe_.beta1,
                 .beta2 = recipe_.beta2,
                 .eps = recipe_.eps,
                 .weight_decay = recipe_.weight_decay,
                 .step = step};
  if (ranks_.size() > 1) ranks_.reduce_scatter(grad_);
  at::Tensor norm;
  if (layers_.empty()) {
    const at::Tensor own = squared_norm(grad_.narrow(0, summed_.begin, summed_.size));
    norm = ranks_.sum(own.reshape({1})).reshape({}).sqrt();
    if (ranks_.size() > 1 && store_.owns_all()) ranks_.all_gather(grad_);
    args.grad_scale = clip_factor(recipe_.clip, norm);
  } else {
    norm = clip_layers().sqrt();
    args.grad_scale = at::ones({}, grad_.options());
  }
  args.apply = at::isfinite(norm).logical_and(at::isfinite(loss)).to(at::kFloat);
  update(args);
  return {norm, args.apply};
}

}  // namespace halo
