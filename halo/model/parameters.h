// Parameters live in flat arenas; everything else holds views. Clipping, AdamW, sums over ranks and
// checkpoints work on the arenas, group by group: a layer's parameters stand together, and so do
// those before and behind the layers.
//
// Where several ranks have a store between them, each group is divided into equal parts, in order
// of rank, the last of which may end with padding. This rank has of
//                       Shard::kNone     kOptimizer   kFull
//   master and moments  all              its part     its part
//   gradient            all              all          its part
//   compute copy        all              all          its part, and all that belongs to no layer
// With kFull a micro-batch's gradient and a layer's weights are nowhere but in a window that
// LayerSharing opens. Of a frozen store only kFull divides anything.
//
// Where each has layers of its own instead (Sharing::by_layer), layer i is rank (i mod ranks)'s: it
// alone has master, moments, gradient and compute copy of it, whole, and no other rank has any use
// for them.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "halo/base/range.h"
#include "halo/formats/safetensors.h"
#include "halo/kernels/common/weight.h"
#include "halo/runtime/communicator.h"
#include "halo/runtime/run_recipe.h"

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

// How ranks have a store's parameters between them.
struct Sharing {
  Communicator* ranks = &one_rank();  // must outlive the store
  Shard shard = Shard::kNone;
  bool by_layer = false;  // of a trained store, all of whose parameters belong to layers
};

class LayerSharing;

class ParameterStore {
 public:
  enum class Use { kFrozen, kTrained };

  // Trained: fp32 master, gradient and two moments (from their first use on), and a compute copy
  // where the compute type is not fp32. Frozen: the compute copy alone. Matrices in int8, which are
  // frozen, lie in no arena, each stack for itself.
  ParameterStore(std::vector<ParameterSpec> specs, Use use, at::ScalarType compute,
                 at::Device device, const Sharing& sharing = {});
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
  at::Device device() const { return device_; }
  at::ScalarType compute_type() const { return compute_type_; }
  // Offset in elements of a parameter in every arena; an Error where it is used from its file.
  int64_t offset(const std::string& name) const;

  Weight weight(const std::string& name) const;
  // The stack from `first` to `last` as one [sum of rows, columns] (or [sum]) weight.
  Weight stack(const std::string& first, const std::string& last) const;

  // A layer's parameters, or some that belong to none.
  struct Group {
    int64_t layer = -1;  // -1: of none
    Range range;         // of the arenas
    Range own;           // of it: what this rank sums the gradient of; all of it on one rank
    Range kept;          // where master() and the moments have what this rank keeps of it
  };
  const std::vector<Group>& groups() const { return groups_; }
  Communicator& ranks() const { return *sharing_.ranks; }
  // What runs the model; none: all of it is here, or all that this rank has to do with.
  const std::shared_ptr<LayerSharing>& layers() const { return layers_; }

  // 1-D arenas, whole or what this rank keeps of them. master() is compute() where the compute type
  // is fp32 and all is kept. The gradient is of a step's micro-batches; where there are several
  // ranks, summed_gradient() becomes their sum.
  at::Tensor& master() { return master_; }
  at::Tensor& grad() { return grad_; }
  at::Tensor& moment1() { return moment(moment1_); }
  at::Tensor& moment2() { return moment(moment2_); }
  at::Tensor& compute() { return compute_; }  // undefined with kFull
  const at::Tensor& compute() const { return compute_; }
  // Whether ranks have layers of their own, and whether this one has the layer's parameters at all.
  bool has_layers_alone() const { return sharing_.by_layer && sharing_.ranks->size() > 1; }
  bool has_layer(int64_t layer) const { return !has_layers_alone() || is_own_layer(layer); }
  // Whether master and moments are of all parameters.
  bool keeps_all() const { return !is_divided_; }
  // Views of the group's elements: of the gradient those that this rank has summed up, of the
  // compute copy those that belong to what it keeps of the master.
  at::Tensor summed_gradient(const Group& group) const;
  at::Tensor kept_compute(const Group& group) const;
  // The part of a parameter that this rank keeps: its elements, and where they lie in the parameter
  // and in master().
  struct Piece {
    int64_t size = 0, in_parameter = 0, in_arena = 0;
  };
  Piece kept_piece(const ParameterSpec& spec) const;

  // Views by name. `arena` is one of the above, and whole.
  at::Tensor view(const at::Tensor& arena, const std::string& name) const;
  // The value where all of it is here: of the master, or the compute copy where frozen or where the
  // master is not. To be written in place on one rank; refresh_compute() after.
  at::Tensor value(const std::string& name) const;
  // fp32 [O] of a matrix in int8, to be written in place; undefined of any other parameter.
  at::Tensor scale(const std::string& name) const;
  // Gives a parameter other values [its shape], on any device: all of them, of which every rank
  // takes what it has.
  void write(const std::string& name, const at::Tensor& values);
  // Calls `visit` with every parameter's value(), in order; on all ranks, who fetch them together
  // where each has a part. A value is there until `visit` returns.
  void visit_values(
      const std::function<void(const ParameterSpec& spec, const at::Tensor& value)>& visit) const;
  // compute = cast(master), on all ranks; nothing where they are one.
  void refresh_compute();
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
  bool is_own_layer(int64_t layer) const {
    return layer % sharing_.ranks->size() == sharing_.ranks->rank();
  }
  // Returns the elements of an arena and how many of them this rank keeps.
  std::pair<int64_t, int64_t> lay_out();
  void share();
  at::Tensor& moment(at::Tensor& tensor);
  size_t index_of(const std::string& name) const;  // an Error where there is no such parameter
  size_t stack_end(size_t first) const;            // one behind its last
  // Gives the stack offsets from `begin` on; returns where it ends.
  int64_t place_stack(size_t first, int64_t begin);
  void make_int8_stacks(at::Device device);
  // In the order of the specs.
  std::vector<Source> match(const std::vector<TensorView>& tensors, const std::string& from) const;
  // The flat tensors that parameter i lies in, and its first element there: those of its stack, the
  // arenas, or what ranks have between them of its group.
  struct Home {
    at::Tensor value, grad;
    int64_t begin;
  };
  Home home(size_t i) const;

  std::vector<ParameterSpec> specs_;
  std::map<std::string, size_t> index_;
  std::vector<int64_t> offsets_;    // in the arenas, or in own_
  std::vector<at::Tensor> own_;     // of a stack in its file, or in int8; undefined: in the arenas
  std::vector<at::Tensor> scales_;  // [rows of the stack]; undefined: not int8
  std::vector<size_t> group_of_;    // of a parameter in the arenas
  std::vector<Group> groups_;
  Use use_;
  at::Device device_ = at::kCPU;
  at::ScalarType compute_type_;
  Sharing sharing_;
  bool is_divided_ = false;
  std::shared_ptr<LayerSharing> layers_;
  at::Tensor master_, grad_, moment1_, moment2_, compute_;
  at::Tensor own_compute_;  // of a store whose compute copy is divided; as master() is
};

// The layer of "model.layers.12.mlp.up_proj.weight"; -1: it belongs to none.
int64_t layer_of(const std::string& name);

// A tensor of the file as fp32 or its own integer type, copied; and a contiguous CPU tensor as a
// view.
at::Tensor to_tensor(const TensorView& view);
TensorView to_view(const std::string& name, const at::Tensor& tensor);
at::ScalarType to_scalar_type(DType dtype);

}  // namespace halo
