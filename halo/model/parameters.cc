#include "halo/model/parameters.h"

#include <set>

#include "ATen/ATen.h"
#include "halo/base/check.h"

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

}  // namespace

ParameterStore::ParameterStore(std::vector<ParameterSpec> specs, Use use, at::ScalarType compute,
                               at::Device device)
    : specs_(std::move(specs)), use_(use) {
  int64_t end = 0;
  for (size_t i = 0; i < specs_.size(); ++i) {
    const ParameterSpec& spec = specs_[i];
    HALO_CHECK(index_.emplace(spec.name, i).second, "parameter '{}' is declared twice", spec.name);
    if (!spec.stacked_on_previous) end = (end + kAlignment - 1) / kAlignment * kAlignment;
    offsets_.push_back(end);
    end += numel(spec.shape);
  }
  const auto options = at::TensorOptions().device(device);
  compute_ = at::zeros({end}, options.dtype(compute));
  if (use == Use::kFrozen) return;
  master_ = compute == at::kFloat ? compute_ : at::zeros({end}, options.dtype(at::kFloat));
  grad_ = at::zeros_like(master_);
  moment1_ = at::zeros_like(master_);
  moment2_ = at::zeros_like(master_);
}

bool ParameterStore::contains(const std::string& name) const {
  return index_.count(name) > 0;
}

int64_t ParameterStore::num_parameters() const {
  int64_t n = 0;
  for (const ParameterSpec& spec : specs_) n += numel(spec.shape);
  return n;
}

int64_t ParameterStore::offset(const std::string& name) const {
  const auto it = index_.find(name);
  HALO_CHECK(it != index_.end(), "no parameter '{}'", name);
  return offsets_[it->second];
}

at::Tensor ParameterStore::view(const at::Tensor& arena, const std::string& name) const {
  at::NoGradGuard no_grad;
  const int64_t begin = offset(name);
  const auto& shape = specs_[index_.at(name)].shape;
  return arena.narrow(0, begin, numel(shape)).view(shape);
}

at::Tensor ParameterStore::value(const std::string& name) const {
  return view(use_ == Use::kTrained ? master_ : compute_, name);
}

Weight ParameterStore::weight(const std::string& name) const {
  return stack(name, name);
}

Weight ParameterStore::stack(const std::string& first, const std::string& last) const {
  at::NoGradGuard no_grad;
  const int64_t begin = offset(first);
  const size_t end_index = index_.count(last) ? index_.at(last) : specs_.size();
  HALO_CHECK(end_index < specs_.size(), "no parameter '{}'", last);
  std::vector<int64_t> shape = specs_[index_.at(first)].shape;
  for (size_t i = index_.at(first) + 1; i <= end_index; ++i) {
    HALO_CHECK(specs_[i].stacked_on_previous, "parameters '{}' and '{}' do not stand in one stack",
               first, last);
    shape[0] += specs_[i].shape[0];
  }
  const int64_t size = numel(shape);
  // detach(): a leaf of its own, so that requires_grad says "trained" and nothing else.
  Weight weight{compute_.narrow(0, begin, size).view(shape).detach(), {}};
  if (use_ == Use::kTrained) {
    weight.grad = grad_.narrow(0, begin, size).view(shape);
    weight.value.set_requires_grad(true);
  }
  return weight;
}

void ParameterStore::refresh_compute() {
  at::NoGradGuard no_grad;
  if (use_ == Use::kTrained && !compute_.is_same(master_)) compute_.copy_(master_);
}

void ParameterStore::zero_grad() {
  grad_.zero_();
}

void ParameterStore::load(const std::vector<TensorView>& tensors, const std::string& from,
                          bool (*ignore)(const std::string& name)) {
  at::NoGradGuard no_grad;
  std::set<std::string> loaded;
  for (const TensorView& tensor : tensors) {
    const auto it = index_.find(tensor.name);
    if (it == index_.end()) {
      if (ignore && ignore(tensor.name)) continue;
      throw_error("{}: tensor '{}' belongs to nothing in this model; is config.json the right one?",
                  from, tensor.name);
    }
    const auto& shape = specs_[it->second].shape;
    if (tensor.shape != shape) {
      throw_error("{}: tensor '{}' has shape {}, config.json asks for {}", from, tensor.name,
                  shape_text(tensor.shape), shape_text(shape));
    }
    if (!is_floating(tensor.dtype)) {
      throw_error("{}: tensor '{}' has type {}, expected a floating type", from, tensor.name,
                  dtype_name(tensor.dtype));
    }
    if (!loaded.insert(tensor.name).second) {
      throw_error("{}: tensor '{}' is there twice", from, tensor.name);
    }
    const auto source = at::from_blob(const_cast<std::byte*>(tensor.bytes.data()), tensor.shape,
                                      at::TensorOptions().dtype(to_scalar_type(tensor.dtype)));
    value(tensor.name).copy_(source);
  }
  for (const ParameterSpec& spec : specs_) {
    if (!loaded.count(spec.name)) {
      throw_error("{}: tensor '{}' {} is missing", from, spec.name, shape_text(spec.shape));
    }
  }
  refresh_compute();
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
  auto tensor = at::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape,
                              at::TensorOptions().dtype(to_scalar_type(view.dtype)));
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
