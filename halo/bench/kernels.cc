// Time of the memory-bound operations and of the loss heads at the shapes of HypeNet-2B, beside the
// bytes that each must move (every input read once, every output written once) or the FLOPs of its
// matrix products, and the copy bandwidth and matrix rate of the same run. On a GPU an operation
// runs with our kernels and with LibTorch's, and the results must agree before a figure is given.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/core/grad_mode.h"
#include "c10/core/impl/DeviceGuardImplInterface.h"
#include "halo/bench/bench.h"
#include "halo/kernels/adamw/adamw.h"
#include "halo/kernels/embedding/embedding.h"
#include "halo/kernels/gate/gate.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/kernels/linear_kl/linear_kl.h"
#include "halo/kernels/rms_norm/rms_norm.h"
#include "halo/kernels/rope/rope.h"
#include "halo/kernels/squared_error/squared_error.h"
#include "halo/kernels/swiglu/swiglu.h"
#include "torch/csrc/autograd/autograd.h"

namespace halo {
namespace {

using torch::autograd::variable_list;

// HypeNet-2B (configs/model); on a CPU fewer tokens and a smaller vocabulary.
struct Shapes {
  int64_t tokens, loss_tokens, vocabulary, parameters;
  int64_t width = 2048, heads = 16, kv_heads = 8, head_dim = 128, mlp = 6144;
};
constexpr Shapes kGpuShapes{32768, 8192, 151936, int64_t{1} << 28};
constexpr Shapes kCpuShapes{512, 128, 8192, int64_t{1} << 20};

struct Subject {
  std::string name;
  double bytes = 0, flops = 0;         // 0: does not apply
  std::function<void()> prepare;       // sets what `run` changes
  std::function<variable_list()> run;  // returns what it wrote
};

class KernelBench {
 public:
  KernelBench(at::Device device, at::ScalarType dtype)
      : device_(device),
        dtype_(dtype),
        shapes_(device.is_cuda() ? kGpuShapes : kCpuShapes),
        element_(static_cast<double>(c10::elementSize(dtype))) {}

  json::object run();

 private:
  at::Tensor random(at::IntArrayRef shape) const {
    return at::randn(shape, at::TensorOptions(at::kFloat).device(device_)).to(dtype_);
  }
  at::Tensor floats(at::IntArrayRef shape) const {
    return at::zeros(shape, at::TensorOptions(at::kFloat).device(device_));
  }
  Weight weight(at::IntArrayRef shape) const {
    return {random(shape).requires_grad_(true), floats(shape)};
  }
  void synchronize() const {
    if (device_.is_cpu()) return;
    c10::impl::getDeviceGuardImpl(device_.type())->synchronizeDevice(device_.index());
  }
  double seconds(const std::function<void()>& run) const;
  variable_list results_of(const Subject& subject, const char* kernels) const;
  void measure(const Subject& subject);
  // Of an operation: forward alone, then forward and backward.
  void measure_both(const std::string& name, double forward_bytes, double backward_bytes,
                    const variable_list& inputs, const std::vector<Weight>& weights,
                    const std::function<variable_list()>& operation);
  void measure_loss(const std::string& name, double flops, const at::Tensor& hidden,
                    const Weight& head, const std::function<at::Tensor()>& loss);

  void measure_rows();
  void measure_optimizer();
  void measure_losses();

  at::Device device_;
  at::ScalarType dtype_;
  Shapes shapes_;
  double element_;  // bytes
  double copy_bandwidth_ = 0, matrix_rate_ = 0;
  json::array results_;
};

// The median of five timings of a few runs each.
double KernelBench::seconds(const std::function<void()>& run) const {
  const int runs = device_.is_cuda() ? 10 : 2;
  std::vector<double> times;
  run();
  for (int repeat = 0; repeat < 5; ++repeat) {
    synchronize();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < runs; ++i) run();
    synchronize();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    times.push_back(time.count() / runs);
  }
  std::nth_element(times.begin(), times.begin() + 2, times.end());
  return times[2];
}

variable_list KernelBench::results_of(const Subject& subject, const char* kernels) const {
  setenv("HALO_CUDA_KERNELS", kernels, 1);
  if (subject.prepare) subject.prepare();
  variable_list results = subject.run();
  for (at::Tensor& x : results) x = x.detach().clone();
  return results;
}

// RMS of the difference over the RMS of b, the largest over the tensors; NaN stays.
double disagreement(const variable_list& a, const variable_list& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const at::Tensor want = b[i].to(at::kFloat);
    const double error = (a[i].to(at::kFloat) - want).norm().item<double>();
    const double ratio = error / std::max(want.norm().item<double>(), 1e-30);
    if (!(ratio <= worst)) worst = ratio;
  }
  return worst;
}

void KernelBench::measure(const Subject& subject) {
  json::object result{{"name", subject.name}};
  if (device_.is_cuda()) {
    const variable_list ours = results_of(subject, "all");
    const double error = disagreement(ours, results_of(subject, "none"));
    result["difference"] = error;
    // Some roundings to bf16; in fp32, sums in another order.
    if (!(error < (dtype_ == at::kFloat ? 1e-5 : 1.6e-2))) {
      result["failed"] = "our kernels and LibTorch's disagree";
      results_.push_back(result);
      return;
    }
    result["libtorch_seconds"] = seconds(subject.run);
    setenv("HALO_CUDA_KERNELS", "all", 1);
  }
  const double time = seconds(subject.run);
  result["seconds"] = time;
  if (subject.bytes > 0) {
    result["bytes"] = subject.bytes;
    result["share_of_copy"] = subject.bytes / time / copy_bandwidth_;
  }
  if (subject.flops > 0) {
    result["flops"] = subject.flops;
    result["share_of_matrix_rate"] = subject.flops / time / matrix_rate_;
  }
  results_.push_back(result);
}

void KernelBench::measure_both(const std::string& name, double forward_bytes, double backward_bytes,
                               const variable_list& inputs, const std::vector<Weight>& weights,
                               const std::function<variable_list()>& operation) {
  if (forward_bytes > 0) {
    measure({name + " forward", forward_bytes, 0, {}, [&] {
               const at::NoGradGuard no_grad;
               return operation();
             }});
  }
  variable_list dy;
  for (const at::Tensor& y : operation()) dy.push_back(random(y.sizes()));
  const auto prepare = [&] {
    for (const Weight& w : weights) at::Tensor(w.grad).zero_();
  };
  const auto both = [&] {
    for (const at::Tensor& x : inputs) x.mutable_grad().reset();
    torch::autograd::backward(operation(), dy);
    variable_list results;
    for (const at::Tensor& x : inputs) results.push_back(x.grad());
    for (const Weight& w : weights) results.push_back(w.grad);
    return results;
  };
  measure({name + " forward and backward", forward_bytes + backward_bytes, 0, prepare, both});
}

void KernelBench::measure_rows() {
  const auto [n, loss_tokens, vocabulary, parameters, d, h, g, size, f] = shapes_;
  const double rows = element_ * double(n) * double(d);  // bytes of [tokens, width]
  const at::Tensor x = random({n, d}).requires_grad_(true);
  const at::Tensor other = random({n, d}).requires_grad_(true);
  const Weight norm = weight({d});
  measure_both("residual + RMSNorm", 4 * rows, 4 * rows, {x, other}, {norm}, [&] {
    const auto [sum, normed] = add_rms_norm(x, other, norm, 1e-6);
    return variable_list{sum, normed};
  });
  measure_both("output norm x gate", 3 * rows, 5 * rows, {x, other}, {norm},
               [&] { return variable_list{norm_gate(x, norm, 1e-6, other)}; });
  measure_both("gate", 3 * rows, 5 * rows, {x, other}, {},
               [&] { return variable_list{norm_gate(x, {}, 1e-6, other)}; });

  const HeadSplit split{h, g, size, true, 1e-6};
  const int64_t columns = 2 * (h + g) * size;
  const double stacked_bytes = element_ * double(n) * double(columns);
  const double qk_bytes = element_ * double(n) * double((h + g) * size);
  const at::Tensor stacked = random({n, columns}).requires_grad_(true);
  const Weight q_norm = weight({size}), k_norm = weight({size});
  const RopeTables tables{random({n, size / 2}).to(at::kFloat),
                          random({n, size / 2}).to(at::kFloat)};
  measure_both("q/k norm + RoPE", 2 * stacked_bytes, 2 * stacked_bytes + qk_bytes, {stacked},
               {q_norm, k_norm}, [&] {
                 const Heads heads = split_heads(stacked, split, q_norm, k_norm, tables, {});
                 return variable_list{heads.q, heads.k, heads.v, heads.gate};
               });

  const double mlp_bytes = element_ * double(n) * double(f);
  const at::Tensor gate_up = random({n, 2 * f}).requires_grad_(true);
  measure_both("SwiGLU", 3 * mlp_bytes, 5 * mlp_bytes, {gate_up}, {},
               [&] { return variable_list{swiglu(gate_up)}; });

  // Half of the tokens have ids of their own, as text has. The forward pass is LibTorch's.
  const Weight table = weight({vocabulary, d});
  const at::Tensor ids =
      at::randint(vocabulary, {n}, at::TensorOptions(at::kLong).device(device_)).div(2, "floor");
  const double touched = double(std::get<0>(at::_unique2(ids)).numel());
  const at::Tensor scale = at::full({1}, 0.1, at::TensorOptions(at::kFloat).device(device_));
  const at::Tensor detached = x.detach();
  measure({"squared error and its gradient", 3 * rows, 0, {}, [&] {
             const SquaredError error = squared_error(detached, other, scale);
             return variable_list{error.sum, error.gradient};
           }});
  measure_both("embedding", 0, 3 * rows + 8 * touched * double(d), {}, {table},
               [&] { return variable_list{embedding(ids, table)}; });
}

void KernelBench::measure_optimizer() {
  const int64_t count = shapes_.parameters;
  const at::Tensor start = random({count}).to(at::kFloat);
  at::Tensor master = start.clone(), m = floats({count}), v = floats({count});
  const at::Tensor grad = random({count}).to(at::kFloat);
  at::Tensor compute = start.to(at::kBFloat16);
  AdamWStep args;
  args.learning_rate = 1e-3;
  args.grad_scale = at::ones({}, master.options());
  args.apply = at::ones({}, master.options());
  const auto prepare = [&] {
    master.copy_(start);
    m.zero_();
    v.zero_();
  };
  measure({"AdamW", 30 * double(count), 0, prepare, [&] {
             adamw_step(master, grad, m, v, compute, {}, args);
             return variable_list{master, m, v, compute};
           }});
  measure({"gradient norm", 4 * double(count), 0, {}, [&] {
             return variable_list{squared_norm(grad)};
           }});
}

void KernelBench::measure_loss(const std::string& name, double flops, const at::Tensor& hidden,
                               const Weight& head, const std::function<at::Tensor()>& loss) {
  measure({name, 0, flops, [&] { at::Tensor(head.grad).zero_(); },
           [&] {
             hidden.mutable_grad().reset();
             const at::Tensor value = loss();
             value.backward();
             return variable_list{value, hidden.grad(), head.grad};
           }});
}

// Forward and backward; the products of student and teacher are counted, not the rows' passes.
void KernelBench::measure_losses() {
  const int64_t n = shapes_.loss_tokens, vocabulary = shapes_.vocabulary, d = shapes_.width;
  const double product = 2.0 * double(n) * double(vocabulary) * double(d);
  const double spread = 1 / std::sqrt(double(d));
  const at::Tensor hidden = random({n, d}).requires_grad_(true);
  // As far from the student's as its own spread: the gradient is a difference of probabilities, and
  // between close ones the rounding of the logits to bf16 is what one would see.
  const at::Tensor teacher_hidden = hidden.detach() + random({n, d});
  const Weight head{(random({vocabulary, d}) * spread).requires_grad_(true),
                    floats({vocabulary, d})};
  const at::Tensor targets =
      at::randint(vocabulary, {n}, at::TensorOptions(at::kLong).device(device_));
  measure_loss("linear + cross-entropy", 3 * product, hidden, head,
               [&] { return linear_cross_entropy(hidden, head, targets, {}); });
  measure_loss("linear + KL", 4 * product, hidden, head,
               [&] { return linear_kl(hidden, head, teacher_hidden, head.value.detach(), {}); });
}

json::object KernelBench::run() {
  const int64_t side = device_.is_cuda() ? 8192 : 512;
  const at::Tensor a = random({side, side}), b = random({side, side});
  at::Tensor c = at::empty_like(a);
  matrix_rate_ = 2 * std::pow(double(side), 3) / seconds([&] { at::mm_out(c, a, b); });
  const int64_t bytes = device_.is_cuda() ? int64_t{1} << 30 : int64_t{1} << 27;
  const at::Tensor from = random({bytes / 4}).to(at::kFloat);
  at::Tensor to = at::empty_like(from);
  copy_bandwidth_ = 2 * double(bytes) / seconds([&] { to.copy_(from); });
  measure_rows();
  measure_optimizer();
  measure_losses();
  unsetenv("HALO_CUDA_KERNELS");
  return {{"type", at::toString(dtype_)},
          {"copy_bytes_per_second", copy_bandwidth_},
          {"matrix_flops_per_second", matrix_rate_},
          {"kernels", results_}};
}

}  // namespace

json::object bench_kernels(at::Device device, at::ScalarType dtype) {
  return KernelBench(device, dtype).run();
}

}  // namespace halo
