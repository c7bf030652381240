// Parameters live in flat arenas; everything else holds views. Clipping, AdamW, all-reduce and
// checkpoints work on the arenas and on the table name -> range.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "halo/base/range.h"
#include "halo/formats/safetensors.h"
#include "halo/kernels/common/weight.h"

namespace halo {

struct ParameterSpec {
  std::string name;  // as in the checkpoint: "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;
  // This parameter stands directly behind the one before it, so that one matrix product can read
  // both (q, k, v and gate; gate and up). The others start at a multiple of 64 elements.
  bool stacked_on_previous = false;
  // A matrix as int8 that is only run, whose rows' fp32 scales are the tensor NAME_scale. All of a
  // stack are.
  bool int8 = false;
  // Where a tied or shared checkpoint tensor may be missing, nothing is: every spec must be loaded.
};

// Elements of all of them.
int64_t num_parameters(const std::vector<ParameterSpec>& specs);

class ParameterStore {
 public:
  enum class Use { kFrozen, kTrained };

  // Trained: fp32 master, gradient and two moments (from their first use on), and a compute copy
  // where the compute type is not fp32. Frozen: the compute copy alone. Matrices in int8, which are
  // frozen, lie in no arena, each stack for itself.
  ParameterStore(std::vector<ParameterSpec> specs, Use use, at::ScalarType compute,
                 at::Device device);
  // Frozen, on the CPU, loaded from tensors of `files`: stacks that lie in the files as they would
  // in the arena and in the compute type are used where they are, without a copy
  // (docs/decisions/mapped-weights.md); the others go into the arena. What is written to a value is
  // this store's alone.
  ParameterStore(std::vector<ParameterSpec> specs, at::ScalarType compute,
                 std::shared_ptr<WeightFiles> files, const std::vector<TensorView>& tensors,
                 const std::string& from);

  const std::vector<ParameterSpec>& specs() const { return specs_; }
  bool contains(const std::string& name) const;
  Use use() const { return use_; }
  // Offset in elements of a parameter in every arena; an Error where it is used from its file.
  int64_t offset(const std::string& name) const;

  Weight weight(const std::string& name) const;
  // The stack from `first` to `last` as one [sum of rows, columns] (or [sum]) weight.
  Weight stack(const std::string& first, const std::string& last) const;

  // 1-D arenas. master() is compute() where the compute type is fp32. Of master and moments those
  // elements that owned() says.
  at::Tensor& master() { return master_; }
  at::Tensor& grad() { return grad_; }
  at::Tensor& moment1() { return moment(moment1_); }
  at::Tensor& moment2() { return moment(moment2_); }
  at::Tensor& compute() { return compute_; }
  const at::Tensor& compute() const { return compute_; }

  // Where several ranks train one model: from now on master and moments are of this range alone,
  // which may end up to kSlack elements beyond the arenas. Before the moments are used.
  static constexpr int64_t kSlack = 65'536;
  void own(const Range& range);
  const Range& owned() const { return owned_; }
  bool owns_all() const { return owned_ == Range{0, compute_.numel()}; }
  // The first `elements` of an arena (grad or compute), up to kSlack of them beyond its end. Those
  // belong to no parameter.
  static at::Tensor padded(const at::Tensor& arena, int64_t elements);

  // Views by name. `arena` is one of the above, and whole.
  at::Tensor view(const at::Tensor& arena, const std::string& name) const;
  // The master value (compute value where frozen or not owned), to be written in place;
  // refresh_compute() after.
  at::Tensor value(const std::string& name) const;
  // fp32 [O] of a matrix in int8, to be written in place; undefined of any other parameter.
  at::Tensor scale(const std::string& name) const;
  void refresh_compute();  // compute = cast(master), as far as owned; nothing where they are one
  void zero_grad();

  // Strict: every spec exactly once, nothing left over; name, shape, type and values
  // (weight_values.h) are checked.
  void load(const std::vector<TensorView>& tensors, const std::string& from);

 private:
  // The file's tensors of a spec.
  struct Source {
    const TensorView* value = nullptr;
    const TensorView* scale = nullptr;  // where it is int8
  };

  void index_specs();
  at::Tensor& moment(at::Tensor& tensor);
  size_t index_of(const std::string& name) const;  // an Error where there is no such parameter
  size_t stack_end(size_t first) const;            // one behind its last
  // Gives the stack offsets from `begin` on; returns where it ends.
  int64_t place_stack(size_t first, int64_t begin);
  void make_int8_stacks(at::Device device);
  // In the order of the specs.
  std::vector<Source> match(const std::vector<TensorView>& tensors, const std::string& from) const;
  // The flat tensor that parameter i lies in at offsets_[i]: that of its stack, or `arena`.
  const at::Tensor& home(size_t i, const at::Tensor& arena) const {
    return own_[i].defined() ? own_[i] : arena;
  }

  std::vector<ParameterSpec> specs_;
  std::map<std::string, size_t> index_;
  std::vector<int64_t> offsets_;    // in home()
  std::vector<at::Tensor> own_;     // of a stack in its file, or in int8; undefined: in the arenas
  std::vector<at::Tensor> scales_;  // [rows of the stack]; undefined: not int8
  Use use_;
  Range owned_;
  at::Tensor master_, grad_, moment1_, moment2_, compute_;
};

// A tensor of the file as fp32 or its own integer type, copied; and a contiguous CPU tensor as a
// view.
at::Tensor to_tensor(const TensorView& view);
TensorView to_view(const std::string& name, const at::Tensor& tensor);
at::ScalarType to_scalar_type(DType dtype);

}  // namespace halo
