#include "halo/stages/calibrate.h"

#include <functional>

#include "ATen/ATen.h"
#include "halo/base/check.h"

namespace halo {
namespace {

// What twice a head's gate may be asked to be; at 2 it would be wide open.
constexpr double kLeastGain = 0.05, kMostGain = 1.95;
// Of the mean power of the mixer's inputs, added to each: a gate is small in directions that the
// tokens hardly show.
constexpr double kRidge = 1e-2;

std::string mixer_name(int64_t layer, const char* tensor) {
  return fmt::format("model.layers.{}.self_attn.{}.weight", layer, tensor);
}

// Of a lightning layer on some tokens: the mixer's input [N, D]; what the student's heads and the
// teacher's put out [N, H, d], fp64, the student's with the gates open.
struct Outputs {
  int64_t layer;
  at::Tensor input, ours, theirs;
};

// Calls `use` for every lightning layer and batch. The gates are at 0 yet, which halve.
void for_each_output(const Model& teacher, const ModelConfig& config, const ParameterStore& student,
                     const std::vector<Batch>& batches,
                     const std::function<void(const Outputs&)>& use) {
  const std::vector<int64_t> shape = {-1, config.lightning_heads, config.lightning_head_dim};
  for (const Batch& batch : batches) {
    decode_visiting(teacher.weights, batch,
                    [&](int64_t layer, const at::Tensor& x, const at::Tensor&) {
                      if (config.mixer_types[layer] != MixerType::kLightning) return;
                      const auto heads = [&](const Mixer& mixer) {
                        return mixer_heads(mixer, teacher.weights.eps, x, batch, layer)
                            .to(at::kDouble)
                            .view(shape);
                      };
                      use({layer, x.to(at::kDouble), 2 * heads(bind_mixer(config, layer, student)),
                           heads(teacher.weights.layers[layer].mixer)});
                    });
  }
}

void scale_values(const Model& teacher, const ModelConfig& config, ParameterStore& student,
                  const std::vector<Batch>& batches) {
  struct Power {
    at::Tensor ours, theirs;  // [H]
  };
  std::vector<Power> powers(static_cast<size_t>(config.num_layers));
  for_each_output(teacher, config, student, batches, [&](const Outputs& out) {
    // Of what the norm gives, not of what its weight makes of it, which is the teacher's already.
    const at::Tensor norm = student.value(mixer_name(out.layer, "o_norm"))
                                .to(at::kDouble)
                                .view({1, config.lightning_heads, config.lightning_head_dim});
    const at::Tensor ours =
        (out.ours / norm.clamp_min(1e-12)).square().sum(at::IntArrayRef({0, 2}));
    const at::Tensor theirs = out.theirs.square().sum(at::IntArrayRef({0, 2}));
    Power& p = powers[out.layer];
    p = p.ours.defined() ? Power{p.ours + ours, p.theirs + theirs} : Power{ours, theirs};
  });
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!powers[layer].ours.defined()) continue;
    at::Tensor scale = (powers[layer].theirs / powers[layer].ours.clamp_min(1e-30)).sqrt();
    // The norm behind the heads takes a factor of all of them out again.
    scale = scale / scale.clamp_min(1e-12).log().mean().exp();
    const int64_t repeats = config.lightning_heads / config.lightning_kv_heads;
    if (repeats > 1) scale = scale.view({-1, repeats}).log().mean(1).exp();
    for (const char* end : {"weight", "bias"}) {
      const std::string name = fmt::format("model.layers.{}.self_attn.v_proj.{}", layer, end);
      if (!student.contains(name)) continue;
      const at::Tensor value = student.value(name);
      const at::Tensor by_row = scale.repeat_interleave(config.lightning_head_dim);
      value.mul_(value.dim() == 2 ? by_row.unsqueeze(1) : by_row);
    }
  }
}

// The gain by which a head would have the teacher's power at a token is regressed on the mixer's
// input, as the logit of the gate that gives it.
void fit_gates(const Model& teacher, const ModelConfig& config, ParameterStore& student,
               const std::vector<Batch>& batches) {
  struct Normal {
    at::Tensor gram, cross;  // [D, D], [D, H]
  };
  std::vector<Normal> normals(static_cast<size_t>(config.num_layers));
  for_each_output(teacher, config, student, batches, [&](const Outputs& out) {
    const at::Tensor ours = out.ours.square().sum(2), theirs = out.theirs.square().sum(2);
    const at::Tensor gain = (theirs / ours.clamp_min(1e-30)).sqrt();  // [N, H]
    const at::Tensor logit = at::logit(gain.clamp(kLeastGain, kMostGain) / 2);
    const at::Tensor gram = out.input.t().mm(out.input), cross = out.input.t().mm(logit);
    Normal& n = normals[out.layer];
    n = n.gram.defined() ? Normal{n.gram + gram, n.cross + cross} : Normal{gram, cross};
  });
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!normals[layer].gram.defined()) continue;
    at::Tensor gram = normals[layer].gram.cpu();
    gram.diagonal().add_(kRidge * gram.diagonal().mean().item<double>());
    const at::Tensor by_head = at::linalg_solve(gram, normals[layer].cross.cpu()).t();  // [H, D]
    student.value(mixer_name(layer, "z_proj"))
        .copy_(by_head.repeat_interleave(config.lightning_head_dim, 0));
  }
}

}  // namespace

void calibrate_heads(const Model& teacher, const ModelConfig& config, ParameterStore& student,
                     const std::vector<Batch>& batches) {
  at::NoGradGuard no_grad;
  scale_values(teacher, config, student, batches);
  student.refresh_compute();
  fit_gates(teacher, config, student, batches);
  student.refresh_compute();
}

}  // namespace halo
