// The graph is the one that cuDNN knows attention's backward pass by: with S = scale Q K^T,
// P = exp(S - l) below the diagonal, D_i = o_i . do_i and dS = P (dO V^T - D),
// dV = P^T dO, dK = scale dS^T Q, dQ = scale dS K. That dQ is a product of its own with all of dS,
// and not added up while blocks of keys pass by, is what fixes the order of sums.
#include "halo/kernels/attention/cudnn_backward.h"

#include <compare>
#include <limits>
#include <map>
#include <mutex>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/attention/cudnn_graph.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "spdlog/spdlog.h"

namespace halo {
namespace {

// dS of all heads of a call. More in a call is faster: 5.5 ms with 16 heads of a row of 16,384
// tokens, 6.3 with 4, which this allows (docs/decisions/attention.md).
constexpr int64_t kBytesOfCall = int64_t{2} << 30;
// The workspace has some percent more than dS. A plan that wants more than this was not measured.
constexpr int64_t kLargestWorkspace = kBytesOfCall / 8 * 9;
constexpr int64_t kShortestRow = 4096;  // shorter ones were not measured against Flash

// A call, and the layout that its heads are a part of.
struct Shape {
  int64_t device, sequences, length, heads, groups, all_heads, all_groups, head_size;
  auto operator<=>(const Shape&) const = default;
};

class BackwardPlan {
 public:
  BackwardPlan(const CudnnHandle& handle, const Shape& shape) : graph_(handle) {
    const auto layout = [&](int64_t heads, int64_t all) {
      return CudnnLayout{
          {shape.sequences, heads, shape.length, shape.head_size},
          {shape.length * all * shape.head_size, shape.head_size, all * shape.head_size, 1}};
    };
    const CudnnLayout queries = layout(shape.heads, shape.all_heads);
    const CudnnLayout keys = layout(shape.groups, shape.all_groups);
    rows_ = packed_layout({shape.sequences, shape.heads, shape.length, 1});
    CudnnLayout log_sums = rows_;
    log_sums.strides[0] = shape.all_heads * shape.length;
    squares_ = packed_layout({shape.sequences, shape.heads, shape.length, shape.length});
    per_head_ = packed_layout({shape.sequences, shape.heads, shape.length, shape.head_size});

    q_ = graph_.in_memory(CudnnType::kBFloat16, queries);
    k_ = graph_.in_memory(CudnnType::kBFloat16, transposed_layout(keys));
    v_ = graph_.in_memory(CudnnType::kBFloat16, transposed_layout(keys));
    o_ = graph_.in_memory(CudnnType::kBFloat16, queries);
    d_o_ = graph_.in_memory(CudnnType::kBFloat16, queries);
    log_sums_ = graph_.in_memory(CudnnType::kFloat, log_sums);
    d_q_ = graph_.in_memory(CudnnType::kBFloat16, queries);
    d_k_ = graph_.in_memory(CudnnType::kBFloat16, keys);
    d_v_ = graph_.in_memory(CudnnType::kBFloat16, keys);
    row_sums_ = graph_.in_memory(CudnnType::kFloat, rows_);
    one_ = graph_.number();
    scale_ = graph_.number();
    hidden_ = graph_.number();

    make_row_sums();
    const CudnnTensor p = make_weights();
    sum_over_queries(p, d_o_, shape, d_v_);
    const CudnnTensor d_s = make_gradient_of_logits(p);
    sum_over_queries(d_s, q_, shape, d_k_);
    const CudnnTensor untransposed = graph_.between(CudnnType::kFloat, keys);
    graph_.reshape(k_, untransposed);
    graph_.multiply_matrices(d_s, untransposed, d_q_);
    graph_.build();
    if (graph_.workspace_bytes() > kLargestWorkspace) {
      throw_error("cuDNN's plan works in {} bytes of memory, more than the {} it may have",
                  graph_.workspace_bytes(), kLargestWorkspace);
    }
  }

  struct Tensors {
    at::Tensor q, k, v, o, d_o, log_sums, d_q, d_k, d_v;
  };
  void run(const Tensors& x, double scale) const {
    const auto bytes = x.q.options().dtype(at::kByte);
    const at::Tensor workspace = at::empty({graph_.workspace_bytes()}, bytes);
    const at::Tensor row_sums = at::empty(rows_.sizes, x.log_sums.options());
    float one = 1, factor = static_cast<float>(scale);
    float hidden = -std::numeric_limits<float>::infinity();
    graph_.run({{q_, x.q.data_ptr()},
                {k_, x.k.data_ptr()},
                {v_, x.v.data_ptr()},
                {o_, x.o.data_ptr()},
                {d_o_, x.d_o.data_ptr()},
                {log_sums_, x.log_sums.data_ptr()},
                {d_q_, x.d_q.data_ptr()},
                {d_k_, x.d_k.data_ptr()},
                {d_v_, x.d_v.data_ptr()},
                {row_sums_, row_sums.data_ptr()},
                {one_, &one},
                {scale_, &factor},
                {hidden_, &hidden}},
               workspace.data_ptr());
  }

 private:
  // D, which is kept in memory. cuDNN finds its kernel by the product with one, which stands where
  // dropout's factor would.
  void make_row_sums() {
    CudnnLayout products = per_head_;
    products.strides[2] = products.sizes[1] * products.sizes[3];
    const CudnnTensor product = graph_.between(CudnnType::kFloat, products);
    graph_.pointwise(CudnnPointwise::kMultiply, d_o_, o_, product);
    const CudnnTensor sum = graph_.between(CudnnType::kFloat, rows_);
    graph_.sum(product, sum);
    graph_.pointwise(CudnnPointwise::kMultiply, sum, one_, row_sums_);
  }

  CudnnTensor square(CudnnType type = CudnnType::kFloat) { return graph_.between(type, squares_); }

  // P
  CudnnTensor make_weights() {
    const CudnnTensor logits = square(), scaled = square(), shifted = square(),
                      row = square(CudnnType::kInt32), column = square(CudnnType::kInt32),
                      seen = square(CudnnType::kBoolean), masked = square(), weights = square();
    graph_.multiply_matrices(q_, k_, logits);
    graph_.pointwise(CudnnPointwise::kMultiply, logits, scale_, scaled);
    graph_.pointwise(CudnnPointwise::kSubtract, scaled, log_sums_, shifted);
    graph_.index(shifted, 2, row);
    graph_.index(shifted, 3, column);
    graph_.pointwise(CudnnPointwise::kGreaterOrEqual, row, column, seen);
    graph_.pointwise(CudnnPointwise::kSelect, shifted, hidden_, masked, seen);
    graph_.pointwise(CudnnPointwise::kExp, masked, std::nullopt, weights);
    return weights;
  }

  // scale dS
  CudnnTensor make_gradient_of_logits(CudnnTensor weights) {
    const CudnnTensor d_p = square(), centred = square(), d_s = square(), scaled = square();
    graph_.multiply_matrices(d_o_, v_, d_p);
    graph_.pointwise(CudnnPointwise::kSubtract, d_p, row_sums_, centred);
    graph_.pointwise(CudnnPointwise::kMultiply, centred, weights, d_s);
    graph_.pointwise(CudnnPointwise::kMultiply, d_s, scale_, scaled);
    return scaled;
  }

  // out = squares^T of_queries, added up over the heads that share keys.
  void sum_over_queries(CudnnTensor squares, CudnnTensor of_queries, const Shape& shape,
                        CudnnTensor out) {
    const CudnnTensor transposed =
        graph_.between(CudnnType::kBFloat16, transposed_layout(squares_));
    graph_.reshape(squares, transposed);
    if (shape.heads == shape.groups) {
      graph_.multiply_matrices(transposed, of_queries, out);
      return;
    }
    const CudnnTensor of_heads = graph_.between(CudnnType::kBFloat16, per_head_);
    graph_.multiply_matrices(transposed, of_queries, of_heads);
    graph_.sum(of_heads, out);
  }

  CudnnGraph graph_;
  CudnnLayout rows_, squares_, per_head_;
  CudnnTensor q_, k_, v_, o_, d_o_, log_sums_, d_q_, d_k_, d_v_, row_sums_, one_, scale_, hidden_;
};

// Made once a shape, which takes tens of milliseconds: too long for every layer of every step. Kept
// while the program runs; so is that a shape was refused.
class Plans {
 public:
  // False, and nothing done, where cuDNN has no plan for the shape.
  bool run(const Shape& shape, const BackwardPlan::Tensors& x, double scale) {
    const DeviceStream stream(x.q);
    const std::lock_guard lock(mutex_);  // a handle serves one thread at a time
    const auto [entry, is_new] = plans_.try_emplace(shape);
    if (is_new) entry->second = make(shape);
    if (!entry->second) return false;
    handles_.at(shape.device)->set_stream(stream.handle());
    entry->second->run(x, scale);
    return true;
  }

 private:
  std::unique_ptr<BackwardPlan> make(const Shape& shape) {
    try {
      auto& handle = handles_[shape.device];
      if (!handle) handle = std::make_unique<CudnnHandle>();
      return std::make_unique<BackwardPlan>(*handle, shape);
    } catch (const Error& error) {
      spdlog::warn(
          "attention's backward pass of {} x {} tokens, {} of {} heads of {}, is FlashAttention's, "
          "slower and in a fixed order too: {}. LibTorch 2.11 with cuDNN 9.19 is known to have it",
          shape.sequences, shape.length, shape.heads, shape.all_heads, shape.head_size,
          error.what());
      return nullptr;
    }
  }

  std::mutex mutex_;
  std::map<int64_t, std::unique_ptr<CudnnHandle>> handles_;
  std::map<Shape, std::unique_ptr<BackwardPlan>> plans_;  // null: refused
};

// Never destroyed: at the program's end the device may be gone first.
Plans& plans() {
  static Plans& all = *new Plans;
  return all;
}

}  // namespace

std::optional<int64_t> cudnn_heads_per_call(int64_t sequences, int64_t length, int64_t heads,
                                            int64_t groups) {
  if (length < kShortestRow) return {};
  const int64_t of_head = 2 * sequences * length * length;
  for (int64_t calls = 1; calls <= groups; ++calls) {
    if (groups % calls == 0 && heads / calls <= kBytesOfCall / of_head) return heads / calls;
  }
  return {};
}

std::optional<AttentionGradients> cudnn_fixed_backward(const at::Tensor& d_o, const at::Tensor& q,
                                                       const at::Tensor& k, const at::Tensor& v,
                                                       const AttentionForward& forward,
                                                       double scale, int64_t length,
                                                       int64_t heads_per_call) {
  const int64_t heads = q.size(1), groups = k.size(1), share = heads_per_call;
  const int64_t sequences = q.size(0) / length, shared = share * groups / heads;
  // The graph names addresses and strides; cuDNN cannot see what is there.
  const auto fits = [&](const at::Tensor& x, const at::Tensor& like) {
    return x.scalar_type() == at::kBFloat16 && x.is_contiguous() && x.sizes() == like.sizes();
  };
  HALO_CHECK(q.dim() == 3 && k.dim() == 3 && fits(q, q) && fits(d_o, q) && fits(forward.o, q) &&
                 fits(k, k) && fits(v, k) && k.size(0) == q.size(0) && k.size(2) == q.size(2),
             "cuDNN's backward pass takes q, k, v, o and do in bf16, contiguous, of one size");
  HALO_CHECK(length > 0 && q.size(0) % length == 0, "sequences are not all of one length");
  HALO_CHECK(groups > 0 && heads % groups == 0 && share > 0 && heads % share == 0 &&
                 share % (heads / groups) == 0,
             "a call has a part of the heads, with all that share keys");
  HALO_CHECK(forward.cudnn_log_sums.defined() &&
                 forward.cudnn_log_sums.scalar_type() == at::kFloat &&
                 forward.cudnn_log_sums.numel() == heads * q.size(0),
             "the forward pass was not cuDNN's: it left no log-sum-exps");
  const at::Tensor log_sums = forward.cudnn_log_sums.contiguous().view({sequences, heads, length});
  const AttentionGradients d{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  const Shape shape{q.device().index(), sequences, length, share, shared, heads, groups, q.size(2)};
  for (int64_t first = 0; first < heads; first += share) {
    const auto queries = [&](const at::Tensor& x) { return x.narrow(1, first, share); };
    const auto keys = [&](const at::Tensor& x) {
      return x.narrow(1, first * groups / heads, shared);
    };
    // All calls are of one shape: the first is refused or none.
    if (!plans().run(shape,
                     {queries(q), keys(k), keys(v), queries(forward.o), queries(d_o),
                      log_sums.narrow(1, first, share), queries(d.q), keys(d.k), keys(d.v)},
                     scale))
      return {};
  }
  return d;
}

}  // namespace halo
