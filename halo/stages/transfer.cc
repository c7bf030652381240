#include "halo/stages/transfer.h"

#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/random.h"
#include "halo/kernels/linear/linear.h"
#include "halo/stages/calibrate.h"

namespace halo {
namespace {

// "model.layers.3.self_attn.k_proj.weight" -> layer 3, "k_proj.weight"; layer -1 outside mixers.
struct MixerName {
  int64_t layer = -1;
  std::string tensor;
};

MixerName parse_mixer_name(const std::string& name) {
  const std::string prefix = "model.layers.", part = ".self_attn.";
  const size_t at = name.find(part);
  if (name.rfind(prefix, 0) != 0 || at == std::string::npos) return {};
  return {std::stoll(name.substr(prefix.size(), at - prefix.size())),
          name.substr(at + part.size())};
}

// Repeats whole heads consecutively: student head h is teacher head h / (heads / teacher_heads).
at::Tensor expand_heads(const at::Tensor& rows, int64_t teacher_heads, int64_t heads) {
  if (teacher_heads == heads) return rows;
  auto shape = rows.sizes().vec();
  shape[0] = shape[0] / teacher_heads * heads;
  return rows.unflatten(0, {teacher_heads, -1})
      .repeat_interleave(heads / teacher_heads, 0)
      .reshape(shape);
}

// What the teacher says a student's tensor is; undefined where it says nothing.
at::Tensor determined(const Model& teacher, const ModelConfig& config, const std::string& name,
                      TransferInit init) {
  const MixerName mixer = parse_mixer_name(name);
  const ParameterStore& store = *teacher.store;
  if (mixer.layer < 0) return store.value(name).to(at::kFloat);
  const bool lightning = config.mixer_types[mixer.layer] == MixerType::kLightning;
  const std::string& t = mixer.tensor;
  if (t == "o_gate.weight" || t.rfind("z_proj", 0) == 0 || t == "o_norm.weight") return {};
  if (!store.contains(name)) {
    // Biases that the teacher lacks are 0; norms of q and k are measured.
    return t == "o_proj.bias"
               ? at::zeros({config.hidden_size}, store.compute().options().dtype(at::kFloat))
               : at::Tensor();
  }
  at::Tensor value = store.value(name).to(at::kFloat);
  if (lightning && (t.rfind("k_proj", 0) == 0 || t.rfind("v_proj", 0) == 0)) {
    return expand_heads(value, teacher.config.num_kv_heads, config.lightning_kv_heads);
  }
  // sigmoid(0) = 1/2 of a gate that starts at 0 is undone here, exactly in any binary type.
  if (t == "o_proj.weight" && init != TransferInit::kRandom) return value * 2;
  return value;
}

at::Tensor random_values(at::IntArrayRef shape, const Random& random, bool normal, double scale) {
  at::Tensor out = at::empty(shape, at::kFloat);
  float* data = out.data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i) {
    data[i] = static_cast<float>(scale * (normal ? random.normal(i) : 2 * random.uniform(i) - 1));
  }
  return out;
}

void start_free_tensor(at::Tensor value, const MixerName& name, const ModelConfig& config,
                       const TransferArgs& args) {
  if (name.tensor.ends_with("norm.weight")) {
    value.fill_(1);
  } else if (name.tensor == "o_gate.weight") {
    value.copy_(initial_output_gate(value.sizes(), name.layer, args.init, args.seed));
  } else if (args.init != TransferInit::kRandom || name.tensor == "z_proj.bias" ||
             name.tensor.starts_with("decay_proj")) {
    value.zero_();
  } else {
    const Random random(args.seed, "transfer.z_proj", name.layer);
    value.copy_(
        random_values(value.sizes(), random, false, 1 / std::sqrt(double(config.hidden_size))));
  }
}

// o_norm of every lightning layer = RMS of each channel of the teacher's attention output.
void match_output_norms(const Model& teacher, const ModelConfig& config, ParameterStore& student,
                        const std::vector<Batch>& batches) {
  std::vector<at::Tensor> squares(config.num_layers);
  int64_t tokens = 0;
  for (const Batch& batch : batches) {
    tokens += batch.tokens.size(0);
    decode_visiting(
        teacher.weights, batch, [&](int64_t layer, const at::Tensor& input, const at::Tensor&) {
          const at::Tensor heads = mixer_heads(teacher.weights.layers[layer].mixer,
                                               teacher.weights.eps, input, batch, layer);
          const at::Tensor sum = heads.to(at::kDouble).square().sum(0);
          squares[layer] = squares[layer].defined() ? squares[layer] + sum : sum;
        });
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string name = fmt::format("model.layers.{}.self_attn.o_norm.weight", layer);
    if (student.contains(name)) student.value(name).copy_((squares[layer] / double(tokens)).sqrt());
  }
}

// q_norm and k_norm of every lightning layer = RMS of each dimension of the teacher's q and k over
// tokens and heads, before RoPE.
void measure_qk_norms(const Model& teacher, const ModelConfig& config, ParameterStore& student,
                      const std::vector<Batch>& batches) {
  const int64_t heads = teacher.config.num_heads, kv_heads = teacher.config.num_kv_heads;
  struct Squares {
    at::Tensor q, k;  // [d] fp64, means over heads
  };
  std::vector<Squares> squares(config.num_layers);
  int64_t tokens = 0;
  for (const Batch& batch : batches) {
    tokens += batch.tokens.size(0);
    decode_visiting(
        teacher.weights, batch, [&](int64_t layer, const at::Tensor& x, const at::Tensor&) {
          const auto& w = std::get<AttentionWeights>(teacher.weights.layers[layer].mixer);
          const at::Tensor rows = linear(x, w.qkvg, w.qkv_bias, batch.kernels)
                                      .to(at::kDouble)
                                      .square()
                                      .sum(0)
                                      .view({-1, w.head_dim});
          const Squares now{rows.narrow(0, 0, heads).mean(0),
                            rows.narrow(0, heads, kv_heads).mean(0)};
          Squares& s = squares[layer];
          s = s.q.defined() ? Squares{s.q + now.q, s.k + now.k} : now;
        });
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (config.mixer_types[layer] != MixerType::kLightning) continue;
    const std::string prefix = fmt::format("model.layers.{}.self_attn.", layer);
    student.value(prefix + "q_norm.weight").copy_((squares[layer].q / double(tokens)).sqrt());
    student.value(prefix + "k_norm.weight").copy_((squares[layer].k / double(tokens)).sqrt());
  }
}

// o_proj of every lightning layer by least squares: heads [N, Hd] -> the teacher's output [N, D].
void fit_output_projections(const Model& teacher, const ModelConfig& config,
                            ParameterStore& student, const std::vector<Batch>& batches) {
  struct Normal {
    at::Tensor gram, cross;  // [Hd, Hd], [Hd, D] fp64
  };
  std::vector<Normal> normals(config.num_layers);
  std::vector<Mixer> mixers;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    mixers.push_back(bind_mixer(config, layer, student));
  }
  for (const Batch& batch : batches) {
    decode_visiting(
        teacher.weights, batch, [&](int64_t layer, const at::Tensor& x, const at::Tensor& target) {
          if (config.mixer_types[layer] != MixerType::kLightning) return;
          const at::Tensor heads =
              mixer_heads(mixers[layer], teacher.weights.eps, x, batch, layer).to(at::kDouble);
          at::Tensor wanted = target.to(at::kDouble);
          const std::string bias = fmt::format("model.layers.{}.self_attn.o_proj.bias", layer);
          if (student.contains(bias)) wanted = wanted - student.value(bias);
          const at::Tensor gram = heads.t().mm(heads), cross = heads.t().mm(wanted);
          Normal& n = normals[layer];
          n = n.gram.defined() ? Normal{n.gram + gram, n.cross + cross} : Normal{gram, cross};
        });
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!normals[layer].gram.defined()) continue;
    at::Tensor gram = normals[layer].gram.cpu();
    // A ridge of 1e-6 of the mean power keeps unused directions at zero instead of at noise.
    gram.diagonal().add_(1e-6 * gram.diagonal().mean().item<double>());
    const at::Tensor solution = at::linalg_solve(gram, normals[layer].cross.cpu());
    student.value(fmt::format("model.layers.{}.self_attn.o_proj.weight", layer))
        .copy_(solution.t());
  }
}

}  // namespace

ModelConfig student_config(const ModelConfig& teacher, std::vector<MixerType> mixers,
                           bool learned_decay) {
  if (teacher.is_hypenet() && !teacher.attention_layers().empty() &&
      static_cast<int64_t>(teacher.attention_layers().size()) != teacher.num_layers) {
    throw_error("the teacher has lightning layers already; HALO starts from a Transformer");
  }
  if (teacher.int8_weights)
    throw_error("the teacher's weights are int8; convert the model that they were made of");
  if (!teacher.attn_use_rope || teacher.attn_use_output_gate) {
    throw_error("the teacher's attention must use RoPE and no output gate");
  }
  HALO_CHECK(static_cast<int64_t>(mixers.size()) == teacher.num_layers,
             "student_config: {} mixers for {} layers", mixers.size(), teacher.num_layers);
  ModelConfig c = teacher;
  c.model_type = ModelType::kHypenet;
  c.attention_output_bias = c.attention_bias;
  c.mixer_types = std::move(mixers);
  c.attn_use_rope = false;
  c.attn_use_output_gate = true;
  c.attn_logits_scaling = {};
  c.lightning_heads = c.lightning_kv_heads = teacher.num_heads;
  c.lightning_head_dim = teacher.head_dim;
  c.lightning_scale = LightningScale::kInverseSqrtD;
  c.lightning_use_rope = c.lightning_use_qk_norm = true;
  c.lightning_use_output_norm = c.lightning_use_output_gate = true;
  c.lightning_learned_decay = learned_decay;
  c.expand_kv_proj = true;
  c.max_position_embeddings = 1048576;
  return c;
}

ModelConfig teacher_config_of(ModelConfig hybrid) {
  hybrid = with_mixers(std::move(hybrid), MixerType::kAttention);
  hybrid.attn_use_rope = true;
  hybrid.attn_use_output_gate = false;
  hybrid.attn_logits_scaling = {};
  return hybrid;
}

ModelConfig with_mixers(ModelConfig hybrid, MixerType type) {
  hybrid.mixer_types.assign(static_cast<size_t>(hybrid.num_layers), type);
  return hybrid;
}

int64_t default_calibration_tokens(TransferInit init) {
  if (init == TransferInit::kMatch) return 4096;
  return init == TransferInit::kLsq || init == TransferInit::kCalibrated ? 65'536 : 0;
}

at::Tensor initial_output_gate(at::IntArrayRef shape, int64_t layer, TransferInit init,
                               uint64_t seed) {
  if (init != TransferInit::kRandom) return at::zeros(shape);
  return random_values(shape, Random(seed, "transfer.o_gate", layer), true, 0.02);
}

bool needs_qk_calibration(const ModelConfig& teacher, const ModelConfig& student) {
  return !teacher.attn_use_qk_norm && student.lightning_use_qk_norm &&
         static_cast<int64_t>(student.attention_layers().size()) < student.num_layers;
}

void transfer(const Model& teacher, const ModelConfig& config, ParameterStore& student,
              const TransferArgs& args) {
  at::NoGradGuard no_grad;
  for (const ParameterSpec& spec : student.specs()) {
    at::Tensor value = student.value(spec.name);
    const at::Tensor known = determined(teacher, config, spec.name, args.init);
    if (known.defined()) {
      value.copy_(known);
    } else {
      start_free_tensor(value, parse_mixer_name(spec.name), config, args);
    }
  }
  if (needs_qk_calibration(teacher.config, config)) {
    HALO_CHECK(!args.qk_calibration.empty(),
               "transfer: the teacher has no QK-norm; its q and k must be measured");
    measure_qk_norms(teacher, config, student, args.qk_calibration);
  }
  if (default_calibration_tokens(args.init) > 0) {
    HALO_CHECK(!args.calibration.empty(), "transfer: this start needs calibration tokens");
    match_output_norms(teacher, config, student, args.calibration);
  }
  student.refresh_compute();
  if (args.init == TransferInit::kCalibrated)
    calibrate_heads(teacher, config, student, args.calibration);
  if (args.init == TransferInit::kLsq || args.init == TransferInit::kCalibrated) {
    fit_output_projections(teacher, config, student, args.calibration);
    student.refresh_compute();
  }
}

double transfer_error(const Model& teacher, const ModelConfig& config,
                      const ParameterStore& student, TransferInit init) {
  at::NoGradGuard no_grad;
  double worst = 0;
  for (const ParameterSpec& spec : student.specs()) {
    const at::Tensor known = determined(teacher, config, spec.name, init);
    if (!known.defined()) continue;
    const MixerName mixer = parse_mixer_name(spec.name);
    const bool is_fitted = init == TransferInit::kCalibrated ||
                           (init == TransferInit::kLsq && mixer.tensor == "o_proj.weight");
    if (is_fitted && mixer.layer >= 0 && config.mixer_types[mixer.layer] == MixerType::kLightning) {
      continue;
    }
    const at::Tensor value = student.value(spec.name).to(at::kFloat);
    worst = std::max(worst, (value - known).abs().max().item<double>());
  }
  return worst;
}

}  // namespace halo
