// Rows of the embedding table, and the node that adds their gradients to the table's.
#include "halo/kernels/embedding/embedding.h"

#include <algorithm>
#include <cstring>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/common/operation.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/embedding/embedding_launch.h"
#include "torch/csrc/autograd/custom_function.h"

namespace halo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_ids(const at::Tensor& ids, int64_t rows) {
  const int64_t* id = ids.const_data_ptr<int64_t>();
  for (int64_t n = 0; n < ids.numel(); ++n) {
    if (id[n] < 0 || id[n] >= rows)
      throw_error("embedding: token id {} at place {} is not in the vocabulary of {}", id[n], n,
                  rows);
  }
}

// Threads share the columns, so every element sums its tokens in their order.
void add_rows_cpu(const at::Tensor& grad, const at::Tensor& ids, const at::Tensor& dy) {
  const int64_t columns = dy.size(1);
  const int64_t* id = ids.const_data_ptr<int64_t>();
  const float* source = dy.const_data_ptr<float>();
  float* target = grad.mutable_data_ptr<float>();
  at::parallel_for(0, columns, /*grain_size=*/64, [&](int64_t begin, int64_t end) {
    for (int64_t n = 0; n < ids.numel(); ++n) {
      const float* from = source + n * columns;
      float* to = target + id[n] * columns;
      for (int64_t c = begin; c < end; ++c) to[c] += from[c];
    }
  });
}

void add_rows_cuda(const at::Tensor& grad, const at::Tensor& ids, const at::Tensor& dy) {
  const DeviceStream stream(dy);
  const int64_t tokens = dy.size(0), columns = dy.size(1);
  const auto [sorted, order] = at::sort(ids, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const at::Tensor edges = at::empty({embedding_chunks(tokens), 2, columns}, grad.options());
  launch_embedding_gradient({.element = element_of(dy),
                             .tokens = tokens,
                             .columns = columns,
                             .ids = sorted.const_data_ptr<int64_t>(),
                             .order = order.const_data_ptr<int64_t>(),
                             .dy = dy.const_data_ptr(),
                             .edges = edges.mutable_data_ptr<float>(),
                             .grad = grad.mutable_data_ptr<float>()},
                            stream.handle());
}

struct EmbeddingNode : torch::autograd::Function<EmbeddingNode> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& ids, const at::Tensor& table,
                            const Weight& weight) {
    ctx->save_for_backward({ids});
    ctx->saved_data["grad"] = weight.grad;
    return at::index_select(table, 0, ids);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor ids = ctx->get_saved_variables()[0];
    at::Tensor grad = ctx->saved_data["grad"].toTensor();
    if (!grad.defined()) return {{}, {}, {}};
    if (has_cuda_kernels(CudaKernels::kEmbedding, grads[0])) {
      add_rows_cuda(grad, ids, grads[0].contiguous());
      return {{}, {}, {}};
    }
    const at::Tensor dy = grads[0].to(at::kFloat).contiguous();
    if (grad.is_cpu()) {
      add_rows_cpu(grad, ids, dy);
    } else {
      // The sorting form: deterministic, in place; `unsafe` leaves out a check that would wait for
      // the device.
      at::_index_put_impl_(grad, c10::List<std::optional<at::Tensor>>({ids}), dy,
                           /*accumulate=*/true, /*unsafe=*/true);
    }
    return {{}, {}, {}};
  }
};

}  // namespace

at::Tensor embedding(const at::Tensor& ids, const Weight& table) {
  HALO_CHECK(ids.dim() == 1 && ids.scalar_type() == at::kLong, "embedding: ids must be [N] int64");
  HALO_CHECK(table.defined() && table.value.dim() == 2, "embedding: the table must be [V, D]");
  check_weight("embedding", table, table.value.sizes(), table.value);
  const at::Tensor rows = ids.contiguous();
  if (rows.is_cpu()) check_ids(rows, table.value.size(0));
  if (!records({table.value})) return at::index_select(table.value, 0, rows);
  return EmbeddingNode::apply(rows, table.value, table);
}

}  // namespace halo
