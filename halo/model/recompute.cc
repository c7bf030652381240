#include "halo/model/recompute.h"

#include "halo/kernels/common/operation.h"
#include "torch/csrc/autograd/autograd.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RecomputeNode : torch::autograd::Function<RecomputeNode> {
  static variable_list forward(AutogradContext* ctx, at::ArrayRef<at::Tensor> inputs,
                               const Recomputed& run) {
    ctx->save_for_backward(inputs.vec());
    ctx->saved_data["run"] = keep(run);
    return run(inputs.vec());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list inputs = ctx->get_saved_variables();
    for (at::Tensor& input : inputs) input = input.detach().requires_grad_(true);
    const auto run = kept<Recomputed>(ctx->saved_data["run"]);
    {
      at::AutoGradMode with_gradients(true);
      const auto outputs = run(inputs);
      torch::autograd::backward(outputs, grads);
    }
    variable_list result;
    for (const at::Tensor& input : inputs) result.push_back(input.grad());
    result.emplace_back();  // of `run`
    return result;
  }
};

struct CallNode : torch::autograd::Function<CallNode> {
  static variable_list forward(AutogradContext* ctx, at::ArrayRef<at::Tensor> tensors,
                               const std::function<void()>& call) {
    ctx->set_materialize_grads(false);
    ctx->saved_data["call"] = keep(call);
    return tensors.vec();
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    kept<std::function<void()>>(ctx->saved_data["call"])();
    variable_list result = grads;
    result.emplace_back();  // of `call`
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> recompute(const Recomputed& run, const std::vector<at::Tensor>& inputs) {
  return RecomputeNode::apply(at::ArrayRef<at::Tensor>(inputs), run);
}

std::vector<at::Tensor> on_the_way_back(const std::vector<at::Tensor>& tensors,
                                        const std::function<void()>& call) {
  return CallNode::apply(at::ArrayRef<at::Tensor>(tensors), call);
}

}  // namespace halo
