#include "halo/stages/plan.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/stages/choose_layers.h"
#include "halo/stages/selection_rule.h"
#include "halo/stages/transfer.h"

namespace halo {
namespace {

// Of a token's forward pass in the mixers, between their projections.
double mixing_flops(const ModelConfig& c, int64_t length) {
  double flops = 0;
  for (MixerType type : c.mixer_types) {
    if (type == MixerType::kAttention) {
      flops += 2.0 * double(c.num_heads * c.head_dim) * double(length);  // QK^T and PV, half masked
    } else {
      const double width = double(c.lightning_heads * c.lightning_head_dim);
      flops += 4.0 * width * double(c.lightning_head_dim) + 2.0 * width * 64;  // state, chunk of 64
    }
  }
  return flops;
}

// Of a token's forward pass, 2 a multiply-add: all matrices, the head, the mixers.
double forward_flops(const ModelConfig& c, int64_t length, bool with_head) {
  double flops = 2.0 * double(num_parameters(decoder_parameters(c)));
  flops -= 2.0 * double(c.vocab_size * c.hidden_size) * (c.tie_word_embeddings ? 1 : 2);
  if (with_head) flops += 2.0 * double(c.vocab_size * c.hidden_size);
  return flops + mixing_flops(c, length);
}

struct Sizes {
  double flops_a_token;        // forward and backward
  int64_t trained_parameters;  // masters, gradients, two moments: 16 bytes each
  int64_t frozen_parameters;
  int64_t activations_a_token;  // elements kept for backward
};

int64_t activations(const ModelConfig& c) {
  const int64_t width = c.lightning_heads * c.lightning_head_dim;
  return c.num_layers * (4 * c.hidden_size + 10 * width + 3 * c.intermediate_size);
}

json::object stage_plan(const std::string& name, const TrainRecipe& train, const Sizes& sizes,
                        int64_t compute_bytes, double gflops) {
  const double tokens = double(train.steps() * train.tokens_per_step);
  const double seconds = tokens * sizes.flops_a_token / (gflops * 1e9);
  const int64_t copy = compute_bytes == 4 ? 0 : compute_bytes;
  const int64_t memory =
      sizes.trained_parameters * (16 + copy) + sizes.frozen_parameters * compute_bytes +
      train.micro_batch_rows * train.sequence_length * sizes.activations_a_token * compute_bytes;
  const int64_t disk = train.keep * sizes.trained_parameters * (12 + compute_bytes);
  return {{"stage", name},
          {"tokens", train.steps() * train.tokens_per_step},
          {"steps", train.steps()},
          {"flops", tokens * sizes.flops_a_token},
          {"seconds_at_least", seconds},
          {"memory_bytes", memory},
          {"disk_bytes", disk}};
}

}  // namespace

json::object plan(const Recipe& recipe, double gflops) {
  const ModelConfig teacher = read_model_config(recipe.teacher);
  const auto layers = static_cast<size_t>(teacher.num_layers);
  const int64_t keep = num_layers_to_keep(recipe.select, teacher.num_layers);
  std::vector<MixerType> mixers(layers, MixerType::kLightning);
  for (int64_t layer : even_layers(teacher.num_layers, keep)) mixers[layer] = MixerType::kAttention;
  const ModelConfig hybrid = student_config(teacher, mixers);
  const ModelConfig lightning =
      student_config(teacher, std::vector<MixerType>(layers, MixerType::kLightning));
  const ModelConfig attention =
      student_config(teacher, std::vector<MixerType>(layers, MixerType::kAttention));
  const int64_t bytes = recipe.run.compute == "bfloat16" ? 2 : 4;
  const int64_t teacher_size = num_parameters(decoder_parameters(teacher));
  const auto mixer_sizes = [&](const TrainRecipe& r, const ModelConfig& c) {
    return Sizes{align_flops(teacher, c, r.sequence_length),
                 num_parameters(all_mixer_parameters(c)), 2 * teacher_size,
                 activations(c) / c.num_layers};
  };
  json::array stages;
  stages.push_back(
      stage_plan("align", recipe.align, mixer_sizes(recipe.align, lightning), bytes, gflops));
  if (recipe.align_attention.tokens > 0) {
    stages.push_back(stage_plan("align-attention", recipe.align_attention,
                                mixer_sizes(recipe.align_attention, attention), bytes, gflops));
  }
  const int64_t student_size = num_parameters(decoder_parameters(hybrid));
  const auto whole = [&](double flops_a_token) {
    return Sizes{flops_a_token, student_size, teacher_size, activations(hybrid)};
  };
  stages.push_back(stage_plan("distill", recipe.distill,
                              whole(distill_flops(teacher, hybrid, recipe.distill.sequence_length)),
                              bytes, gflops));
  if (recipe.finetune.tokens > 0) {
    stages.push_back(stage_plan("finetune", recipe.finetune,
                                whole(finetune_flops(hybrid, recipe.finetune.sequence_length)),
                                bytes, gflops));
  }
  double seconds = 0;
  int64_t memory = 0, disk = 0;
  for (const json::value& value : stages) {
    const json::object& stage = value.as_object();
    seconds += stage.at("seconds_at_least").to_number<double>();
    memory = std::max(memory, stage.at("memory_bytes").to_number<int64_t>());
    disk += stage.at("disk_bytes").to_number<int64_t>();
  }
  return {{"teacher_parameters", teacher_size},
          {"student_parameters", student_size},
          {"attention_layers_kept", keep},
          {"matrix_gflops", gflops},
          {"stages", stages},
          {"seconds_at_least", seconds},
          {"memory_bytes", memory},
          {"disk_bytes", disk}};
}

double align_flops(const ModelConfig& teacher, const ModelConfig& student, int64_t length) {
  // Backward stops at the mixers' input, so the gradient of their first product's is not needed.
  double mixers = 2.0 * double(num_parameters(all_mixer_parameters(student)));
  const double outputs = 2.0 * double(student.num_layers * student.hidden_size) *
                         double(student.lightning_heads * student.lightning_head_dim);
  return forward_flops(teacher, length, false) + 2 * mixers + outputs +
         3 * mixing_flops(student, length);
}

double finetune_flops(const ModelConfig& student, int64_t length) {
  return 3 * forward_flops(student, length, true);
}

double distill_flops(const ModelConfig& teacher, const ModelConfig& student, int64_t length) {
  return forward_flops(teacher, length, true) + 3 * forward_flops(student, length, true);
}

std::string format_plan(const json::object& plan) {
  std::string out = fmt::format(
      "teacher {:.1f}M parameters, student {:.1f}M, {} attention layers kept\n"
      "{:<16} {:>14} {:>8} {:>11} {:>12} {:>10} {:>10}\n",
      plan.at("teacher_parameters").to_number<double>() / 1e6,
      plan.at("student_parameters").to_number<double>() / 1e6,
      plan.at("attention_layers_kept").to_number<int64_t>(), "stage", "tokens", "steps", "TFLOP",
      "seconds >=", "memory GiB", "disk GiB");
  const double gib = double(1 << 30);
  for (const json::value& value : plan.at("stages").as_array()) {
    const json::object& s = value.as_object();
    out += fmt::format("{:<16} {:>14} {:>8} {:>11.1f} {:>12.0f} {:>10.2f} {:>10.2f}\n",
                       std::string(s.at("stage").as_string()), s.at("tokens").to_number<int64_t>(),
                       s.at("steps").to_number<int64_t>(), s.at("flops").to_number<double>() / 1e12,
                       s.at("seconds_at_least").to_number<double>(),
                       s.at("memory_bytes").to_number<double>() / gib,
                       s.at("disk_bytes").to_number<double>() / gib);
  }
  return out +
         fmt::format("{:<16} {:>47.0f} s at {:.0f} GFLOP/s, the matrix rate of this machine\n",
                     "in all", plan.at("seconds_at_least").to_number<double>(),
                     plan.at("matrix_gflops").to_number<double>());
}

}  // namespace halo
