#include "halo/model/parameters.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/formats/weight_names.h"
#include "halo/model/layer_sharing.h"
#include "halo/model/weight_values.h"

namespace halo {
namespace {

constexpr int64_t kAlignment = 64;  // elements: 256 bytes in fp32, the widest vector load and more

int64_t numel(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (int64_t size : shape) n *= size;
  return n;
}

std::string shape_text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void check_scales(const TensorView& scales, const std::string& from) {
  check_values(scales, from);
  if (to_tensor(scales).le(0).any().item<bool>())
    throw_error("{}: tensor '{}' has scales that are not above 0", from, scales.name);
}

int64_t aligned(int64_t offset, int64_t to = kAlignment) {
  return (offset + to - 1) / to * to;
}

// Whether the tensors have type `compute` and lie end to end, so that one view covers them.
bool lies_as_stack(std::span<const TensorView* const> stack, at::ScalarType compute) {
  const std::byte* end = stack.front()->bytes.data();
  if (reinterpret_cast<uintptr_t>(end) % dtype_size(stack.front()->dtype) != 0) return false;
  for (const TensorView* tensor : stack) {
    if (to_scalar_type(tensor->dtype) != compute || tensor->bytes.data() != end) return false;
    end += tensor->bytes.size();
  }
  return true;
}

// A flat tensor over the stack's bytes in its file, which it keeps open.
at::Tensor map_stack(std::span<const TensorView* const> stack,
                     const std::shared_ptr<WeightFiles>& files) {
  int64_t elements = 0;
  for (const TensorView* tensor : stack) elements += tensor->numel();
  return at::from_blob(
      const_cast<std::byte*>(stack.front()->bytes.data()), {elements}, [files](void*) {},
      at::TensorOptions().dtype(to_scalar_type(stack.front()->dtype)));
}

// Not copied.
at::Tensor as_tensor(const TensorView& view) {
  return at::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape,
                       at::TensorOptions().dtype(to_scalar_type(view.dtype)));
}

}  // namespace

int64_t layer_of(const std::string& name) {
  constexpr std::string_view kLayers = "model.layers.";
  return name.starts_with(kLayers) ? std::stoll(name.substr(kLayers.size())) : -1;
}

int64_t num_parameters(const std::vector<ParameterSpec>& specs) {
  int64_t n = 0;
  for (const ParameterSpec& spec : specs) n += numel(spec.shape);
  return n;
}

void ParameterStore::index_specs() {
  for (size_t i = 0; i < specs_.size(); ++i)
    HALO_CHECK(index_.emplace(specs_[i].name, i).second, "parameter '{}' is declared twice",
               specs_[i].name);
  offsets_.resize(specs_.size());
  own_.resize(specs_.size());
  scales_.resize(specs_.size());
}

size_t ParameterStore::stack_end(size_t first) const {
  size_t last = first + 1;
  while (last < specs_.size() && specs_[last].stacked_on_previous) ++last;
  return last;
}

int64_t ParameterStore::place_stack(size_t first, int64_t begin) {
  for (size_t i = first; i < stack_end(first); ++i) {
    offsets_[i] = begin;
    begin += numel(specs_[i].shape);
  }
  return begin;
}

void ParameterStore::make_int8_stacks(at::Device device) {
  const at::TensorOptions options(device);
  for (size_t first = 0; first < specs_.size(); first = stack_end(first)) {
    if (!specs_[first].int8) continue;
    HALO_CHECK(use_ == Use::kFrozen, "'{}' in int8 cannot be trained", specs_[first].name);
    const int64_t elements = place_stack(first, 0);
    const at::Tensor values = at::empty({elements}, options.dtype(at::kChar));
    const at::Tensor scales =
        at::empty({elements / specs_[first].shape[1]}, options.dtype(at::kFloat));
    for (size_t i = first; i < stack_end(first); ++i) {
      own_[i] = values;
      scales_[i] = scales;
    }
  }
}

// Of several ranks each has as much of a group, so its end is padded; or all of it, or nothing.
std::pair<int64_t, int64_t> ParameterStore::lay_out() {
  const int64_t ranks = sharing_.ranks->size();
  const int64_t group_end = ranks > 1 ? ranks * kAlignment : 1;
  group_of_.resize(specs_.size());
  int64_t end = 0;
  for (size_t i = 0; i < specs_.size(); ++i) {
    if (own_[i].defined()) continue;
    const int64_t layer = layer_of(specs_[i].name);
    const bool begins_group = groups_.empty() || groups_.back().layer != layer;
    HALO_CHECK(!(begins_group && specs_[i].stacked_on_previous), "parameter '{}' begins a stack",
               specs_[i].name);
    if (begins_group) end = aligned(end, group_end);
    if (!specs_[i].stacked_on_previous) end = aligned(end);
    if (begins_group) groups_.push_back({.layer = layer, .range = {end, 0}});
    offsets_[i] = end;
    group_of_[i] = groups_.size() - 1;
    end += numel(specs_[i].shape);
    groups_.back().range.size = aligned(end - groups_.back().range.begin, group_end);
  }
  const int64_t elements = aligned(end, group_end);
  int64_t of_layers = 0;  // kept, where ranks have layers of their own
  for (Group& group : groups_) {
    if (has_layers_alone()) {
      HALO_CHECK(group.layer >= 0, "ranks have layers of their own, and parameters of none");
      group.own = {group.range.begin, is_own_layer(group.layer) ? group.range.size : 0};
      group.kept = {of_layers, group.own.size};
      of_layers += group.own.size;
      continue;
    }
    const Range part = sharing_.ranks->part(group.range.size);
    group.own = {group.range.begin + part.begin, part.size};
    group.kept = is_divided_ ? Range{group.range.begin / ranks, part.size} : group.range;
  }
  if (has_layers_alone()) return {elements, of_layers};
  return {elements, is_divided_ ? elements / ranks : elements};
}

ParameterStore::ParameterStore(std::vector<ParameterSpec> specs, Use use, at::ScalarType compute,
                               at::Device device, const Sharing& sharing)
    : specs_(std::move(specs)),
      use_(use),
      device_(device),
      compute_type_(compute),
      sharing_(sharing) {
  index_specs();
  make_int8_stacks(device);
  const int64_t ranks = sharing.ranks->size();
  HALO_CHECK(use == Use::kTrained || !sharing.by_layer, "a frozen store has no layers alone");
  const bool is_fetched = ranks > 1 && sharing.shard == Shard::kFull && !sharing.by_layer;
  const bool is_in_parts = is_fetched || has_layers_alone();  // the compute copy and the gradient
  is_divided_ =
      is_in_parts || (ranks > 1 && sharing.shard == Shard::kOptimizer && use == Use::kTrained);
  const auto [elements, kept] = lay_out();
  const auto options = at::TensorOptions().device(device);
  if (!is_in_parts) compute_ = at::zeros({elements}, options.dtype(compute));
  if (use == Use::kTrained) {
    const bool is_one = compute == at::kFloat && !is_divided_;
    master_ = is_one ? compute_ : at::zeros({kept}, options.dtype(at::kFloat));
    // Who has all weights adds up a gradient of all, whatever it keeps of the rest.
    grad_ = at::zeros({is_in_parts ? kept : elements}, options.dtype(at::kFloat));
  }
  if (is_in_parts) {
    const bool is_one = use == Use::kTrained && compute == at::kFloat;
    own_compute_ = is_one ? master_ : at::zeros({kept}, options.dtype(compute));
  }
  if (is_fetched || (ranks > 1 && use == Use::kTrained && !sharing.by_layer)) share();
}

void ParameterStore::share() {
  std::vector<LayerSharing::Group> groups;
  for (const Group& group : groups_) {
    LayerSharing::Group shared{.layer = group.layer, .size = group.range.size};
    if (compute_.defined()) {
      shared.compute = compute_.narrow(0, group.range.begin, group.range.size);
    } else {
      shared.own_compute = own_compute_.narrow(0, group.kept.begin, group.kept.size);
      if (group.layer < 0) shared.compute = at::zeros({group.range.size}, own_compute_.options());
    }
    if (use_ == Use::kTrained) {
      const bool is_whole = compute_.defined();
      at::Tensor& gradient = is_whole ? shared.gradient : shared.gradient_sum;
      gradient =
          is_whole ? grad_.narrow(0, group.range.begin, group.range.size) : summed_gradient(group);
    }
    groups.push_back(std::move(shared));
  }
  layers_ =
      std::make_shared<LayerSharing>(*sharing_.ranks, device_, compute_type_, std::move(groups));
}

at::Tensor& ParameterStore::moment(at::Tensor& tensor) {
  if (!tensor.defined() && use_ == Use::kTrained) tensor = at::zeros_like(master_);
  return tensor;
}

at::Tensor ParameterStore::summed_gradient(const Group& group) const {
  const Range& range = own_compute_.defined() ? group.kept : group.own;
  return grad_.narrow(0, range.begin, range.size);
}

at::Tensor ParameterStore::kept_compute(const Group& group) const {
  if (own_compute_.defined()) return own_compute_.narrow(0, group.kept.begin, group.kept.size);
  const Range& range = is_divided_ ? group.own : group.range;
  return compute_.narrow(0, range.begin, range.size);
}

ParameterStore::Piece ParameterStore::kept_piece(const ParameterSpec& spec) const {
  const Range whole{offset(spec.name), numel(spec.shape)};
  const Group& group = groups_[group_of_[index_.at(spec.name)]];
  const Range& keeps = is_divided_ ? group.own : group.range;
  const Range own = intersection(whole, keeps);
  if (own.size == 0) return {};
  return {own.size, own.begin - whole.begin, own.begin - keeps.begin + group.kept.begin};
}

ParameterStore::ParameterStore(std::vector<ParameterSpec> specs, at::ScalarType compute,
                               std::shared_ptr<WeightFiles> files,
                               const std::vector<TensorView>& tensors, const std::string& from)
    : specs_(std::move(specs)), use_(Use::kFrozen), compute_type_(compute) {
  at::NoGradGuard no_grad;
  index_specs();
  const std::vector<Source> sources = match(tensors, from);
  files->allow_private_writes();
  make_int8_stacks(at::kCPU);
  int64_t end = 0;
  std::vector<std::pair<int64_t, int64_t>> gaps;  // between stacks of the arena
  for (size_t first = 0, last; first < specs_.size(); first = last) {
    last = stack_end(first);
    std::vector<const TensorView*> stack;
    for (size_t i = first; i < last; ++i) stack.push_back(sources[i].value);
    if (lies_as_stack(stack, specs_[first].int8 ? at::kChar : compute)) {
      place_stack(first, 0);
      std::fill_n(own_.begin() + static_cast<ptrdiff_t>(first), stack.size(),
                  map_stack(stack, files));
    } else if (!specs_[first].int8) {
      gaps.emplace_back(end, aligned(end));
      end = place_stack(first, aligned(end));
    }
  }
  compute_ = at::empty({end}, at::TensorOptions().dtype(compute));
  for (const auto& [begin, stop] : gaps) compute_.slice(0, begin, stop).zero_();
  for (size_t i = 0; i < specs_.size(); ++i) {
    const auto& [source, scales] = sources[i];
    if (scales) scale(specs_[i].name).copy_(as_tensor(*scales));
    const at::Tensor to = value(specs_[i].name);
    if (to.const_data_ptr() == source->bytes.data()) continue;  // it is the file's
    to.copy_(as_tensor(*source));
    release_pages(source->bytes);  // or the model would be in memory twice
  }
}

bool ParameterStore::contains(const std::string& name) const {
  return index_.count(name) > 0;
}

size_t ParameterStore::index_of(const std::string& name) const {
  const auto it = index_.find(name);
  HALO_CHECK(it != index_.end(), "no parameter '{}'", name);
  return it->second;
}

int64_t ParameterStore::offset(const std::string& name) const {
  const size_t i = index_of(name);
  HALO_CHECK(!own_[i].defined(), "parameter '{}' is in no arena", name);
  return offsets_[i];
}

at::Tensor ParameterStore::view(const at::Tensor& arena, const std::string& name) const {
  at::NoGradGuard no_grad;
  const int64_t begin = offset(name);
  const auto& shape = specs_[index_.at(name)].shape;
  return arena.narrow(0, begin, numel(shape)).view(shape);
}

ParameterStore::Home ParameterStore::home(size_t i) const {
  if (own_[i].defined()) return {own_[i], {}, offsets_[i]};
  if (!layers_ && !has_layers_alone()) return {compute_, grad_, offsets_[i]};
  const size_t group = group_of_[i];
  if (!layers_) {
    HALO_CHECK(has_layer(groups_[group].layer), "parameter '{}' is another rank's", specs_[i].name);
    return {own_compute_, grad_,
            offsets_[i] - groups_[group].range.begin + groups_[group].kept.begin};
  }
  return {layers_->compute(group), layers_->gradient(group),
          offsets_[i] - groups_[group].range.begin};
}

at::Tensor ParameterStore::value(const std::string& name) const {
  at::NoGradGuard no_grad;
  const size_t i = index_of(name);
  if (use_ == Use::kTrained && keeps_all()) return view(master_, name);
  const Home home = this->home(i);
  const auto& shape = specs_[i].shape;
  return home.value.narrow(0, home.begin, numel(shape)).view(shape);
}

void ParameterStore::write(const std::string& name, const at::Tensor& values) {
  at::NoGradGuard no_grad;
  const size_t i = index_of(name);
  const ParameterSpec& spec = specs_[i];
  HALO_CHECK(!groups_.empty(), "write: '{}' is of a store that uses files", name);
  HALO_CHECK(values.sizes() == at::IntArrayRef(spec.shape), "write: '{}' is {}, got {}", name,
             shape_text(spec.shape), shape_text(values.sizes()));
  const Piece piece = kept_piece(spec);
  const at::Tensor kept = values.reshape({-1}).narrow(0, piece.in_parameter, piece.size);
  for (const at::Tensor& arena : {master_, own_compute_}) {
    if (arena.defined()) arena.narrow(0, piece.in_arena, piece.size).copy_(kept);
  }
  const bool is_here = compute_.defined() || groups_[group_of_[i]].layer < 0;
  if (!is_here) return;
  const Home home = this->home(i);
  home.value.narrow(0, home.begin, values.numel()).view(spec.shape).copy_(values);
}

void ParameterStore::visit_values(
    const std::function<void(const ParameterSpec&, const at::Tensor&)>& visit) const {
  if (!layers_) {
    for (const ParameterSpec& spec : specs_) visit(spec, value(spec.name));
    return;
  }
  layers_->settle();
  for (size_t i = 0, g = 0; g < groups_.size(); ++g) {
    layers_->acquire(groups_[g].layer, groups_[g].layer + 1, /*gradient=*/false);
    for (; i < specs_.size() && group_of_[i] == g; ++i) visit(specs_[i], value(specs_[i].name));
    layers_->release(groups_[g].layer);
  }
}

at::Tensor ParameterStore::scale(const std::string& name) const {
  const size_t i = index_of(name);
  if (!scales_[i].defined()) return {};
  const auto& shape = specs_[i].shape;
  return scales_[i].narrow(0, offsets_[i] / shape[1], shape[0]);
}

Weight ParameterStore::weight(const std::string& name) const {
  return stack(name, name);
}

Weight ParameterStore::stack(const std::string& first, const std::string& last) const {
  at::NoGradGuard no_grad;
  HALO_CHECK(contains(first), "no parameter '{}'", first);
  const size_t begin_index = index_.at(first);
  const size_t end_index = index_.count(last) ? index_.at(last) : specs_.size();
  HALO_CHECK(end_index < specs_.size(), "no parameter '{}'", last);
  std::vector<int64_t> shape = specs_[begin_index].shape;
  for (size_t i = begin_index + 1; i <= end_index; ++i) {
    HALO_CHECK(specs_[i].stacked_on_previous, "parameters '{}' and '{}' do not stand in one stack",
               first, last);
    shape[0] += specs_[i].shape[0];
  }
  const int64_t size = numel(shape);
  // detach(): a leaf of its own, so that requires_grad says "trained" and nothing else.
  const Home home = this->home(begin_index);
  Weight weight{home.value.narrow(0, home.begin, size).view(shape).detach(), {}};
  if (use_ == Use::kTrained) {
    weight.grad = home.grad.narrow(0, home.begin, size).view(shape);
    weight.value.set_requires_grad(true);
  }
  if (scales_[begin_index].defined())
    weight.scale = scales_[begin_index].narrow(0, home.begin / shape[1], shape[0]);
  return weight;
}

void ParameterStore::refresh_compute() {
  at::NoGradGuard no_grad;
  if (use_ != Use::kTrained) return;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const at::Tensor kept = master_.narrow(0, groups_[g].kept.begin, groups_[g].kept.size);
    const at::Tensor copy = kept_compute(groups_[g]);
    if (!copy.is_alias_of(kept)) copy.copy_(kept);
    if (is_divided_ && layers_) layers_->give_out(g);
  }
}

void ParameterStore::zero_grad() {
  grad_.zero_();
}

std::vector<ParameterStore::Source> ParameterStore::match(const std::vector<TensorView>& tensors,
                                                          const std::string& from) const {
  std::vector<Source> sources(specs_.size());
  for (const TensorView& tensor : tensors) {
    auto it = index_.find(tensor.name);
    const bool is_scale = it == index_.end() && tensor.name.ends_with(kScaleSuffix);
    if (is_scale) it = index_.find(tensor.name.substr(0, tensor.name.size() - kScaleSuffix.size()));
    if (it == index_.end() || (is_scale && !specs_[it->second].int8)) {
      throw_error("{}: tensor '{}' belongs to nothing in this model; is config.json the right one?",
                  from, tensor.name);
    }
    const ParameterSpec& spec = specs_[it->second];
    const auto shape = is_scale ? std::vector{spec.shape[0]} : spec.shape;
    if (tensor.shape != shape) {
      throw_error("{}: tensor '{}' has shape {}, config.json asks for {}", from, tensor.name,
                  shape_text(tensor.shape), shape_text(shape));
    }
    const bool is_int8 = spec.int8 && !is_scale;
    if (is_int8 ? tensor.dtype != DType::kI8 : !is_floating(tensor.dtype)) {
      throw_error("{}: tensor '{}' has type {}, expected {}", from, tensor.name,
                  dtype_name(tensor.dtype), is_int8 ? "I8" : "a floating type");
    }
    Source& source = sources[it->second];
    const TensorView*& place = is_scale ? source.scale : source.value;
    if (place) throw_error("{}: tensor '{}' is there twice", from, tensor.name);
    place = &tensor;
  }
  for (size_t i = 0; i < specs_.size(); ++i) {
    const ParameterSpec& spec = specs_[i];
    if (!sources[i].value) {
      throw_error("{}: tensor '{}' {} is missing", from, spec.name, shape_text(spec.shape));
    }
    if (spec.int8 && !sources[i].scale) {
      throw_error("{}: tensor '{}{}' [{}] is missing", from, spec.name, kScaleSuffix,
                  spec.shape[0]);
    }
  }
  for (const Source& source : sources) {
    check_values(*source.value, from);
    if (source.scale) check_scales(*source.scale, from);
  }
  return sources;
}

void ParameterStore::load(const std::vector<TensorView>& tensors, const std::string& from) {
  at::NoGradGuard no_grad;
  const std::vector<Source> sources = match(tensors, from);
  for (size_t i = 0; i < specs_.size(); ++i) {
    const auto& [source, scales] = sources[i];
    if (scales) {
      value(specs_[i].name).copy_(as_tensor(*source));
      scale(specs_[i].name).copy_(as_tensor(*scales));
    } else {
      write(specs_[i].name, as_tensor(*source));
    }
  }
}

at::ScalarType to_scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return at::kDouble;
    case DType::kF32:
      return at::kFloat;
    case DType::kF16:
      return at::kHalf;
    case DType::kBF16:
      return at::kBFloat16;
    case DType::kI64:
      return at::kLong;
    case DType::kI32:
      return at::kInt;
    case DType::kI16:
      return at::kShort;
    case DType::kI8:
      return at::kChar;
    case DType::kU8:
      return at::kByte;
    case DType::kBool:
      return at::kBool;
  }
  throw_error("to_scalar_type: not a DType: {}", static_cast<int>(dtype));
}

namespace {

DType to_dtype(at::ScalarType type) {
  for (DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32,
                      DType::kI16, DType::kI8, DType::kU8, DType::kBool}) {
    if (to_scalar_type(dtype) == type) return dtype;
  }
  throw_error("no file type for a tensor of type {}", at::toString(type));
}

}  // namespace

at::Tensor to_tensor(const TensorView& view) {
  const at::Tensor tensor = as_tensor(view);
  return is_floating(view.dtype) ? tensor.to(at::kFloat, false, /*copy=*/true) : tensor.clone();
}

TensorView to_view(const std::string& name, const at::Tensor& tensor) {
  HALO_CHECK(tensor.is_cpu() && tensor.is_contiguous(),
             "to_view: '{}' must be contiguous on the CPU", name);
  return {name,
          to_dtype(tensor.scalar_type()),
          tensor.sizes().vec(),
          {static_cast<const std::byte*>(tensor.data_ptr()), static_cast<size_t>(tensor.nbytes())}};
}

}  // namespace halo
