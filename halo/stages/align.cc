// Stages 0, 1 and 1b: transfer and alignment, layer by layer, to the teacher's mixers.
#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/median.h"
#include "halo/stages/losses.h"
#include "halo/stages/stages.h"
#include "halo/stages/transfer.h"

namespace halo {
namespace {

std::vector<MixerType> all_layers(const ModelConfig& config, MixerType type) {
  return std::vector<MixerType>(static_cast<size_t>(config.num_layers), type);
}

TransferArgs transfer_args(const StageContext& context, const ModelConfig& student) {
  TransferArgs args;
  args.init = context.recipe().transfer.init;
  args.seed = context.seed();
  if (args.init == TransferInit::kMatch || args.init == TransferInit::kLsq) {
    const int64_t chosen = context.recipe().transfer.calibration_tokens;
    const int64_t published = args.init == TransferInit::kMatch ? 4096 : 65'536;
    args.calibration =
        context.calibration(context.recipe().align, "transfer", chosen > 0 ? chosen : published);
  }
  if (needs_qk_calibration(context.teacher().config, student)) {
    args.qk_calibration = context.calibration(context.recipe().align, "transfer",
                                              context.recipe().transfer.qk_norm_tokens);
  }
  return args;
}

// Trains the mixers in `trained` (a store of mixers alone) towards the teacher's and writes whole
// models: everything else comes from `rest`.
void align_mixers(const StageContext& context, const std::string& stage, const TrainRecipe& train,
                  const ModelConfig& config, ParameterStore& trained, ParameterStore& rest,
                  const fs::path& out) {
  const Loader loader = context.loader(train, stage);
  const std::vector<Mixer> mixers = bind_mixers(config, trained);
  TrainJob job = context.job(stage, train, out, loader, trained, config);
  job.forward_backward = align_step(mixers, context.teacher().weights, context.machine());
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    job.extra_metrics.push_back(fmt::format("layer_{}", layer));
  }
  job.write_model = [&](const fs::path& directory) {
    at::NoGradGuard no_grad;
    for (const ParameterSpec& spec : trained.specs()) {
      rest.value(spec.name).copy_(trained.value(spec.name));
    }
    context.save(directory, config, rest);
  };
  const TrainResult result = halo::train(job);

  const std::vector<double> variance = explained_variance(context, mixers);
  const auto worst = std::min_element(variance.begin(), variance.end()) - variance.begin();
  json::array layers;
  for (double v : variance) layers.push_back(number_or_null(v));
  finish_stage(out, stage,
               {"median over layers of held-out explained variance", median(variance),
                context.recipe().gates.align_explained_variance, Gate::Kind::kAtLeast},
               {{"explained_variance", layers},
                {"worst_layer", worst},
                {"first_loss", result.first_loss},
                {"last_loss", result.last_loss},
                {"tokens", train.steps() * train.tokens_per_step},
                {"skipped_steps", result.skipped},
                {"seconds", result.seconds}});
}

}  // namespace

void run_transfer(const StageContext& context, const fs::path& out) {
  const Model& teacher = context.teacher();
  const ModelConfig config =
      student_config(teacher.config, all_layers(teacher.config, MixerType::kLightning));
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen,
                       context.machine().compute, context.machine().device);
  const TransferArgs args = transfer_args(context, config);
  transfer(teacher, config, store, args);
  commit_directory(out / "step-0",
                   [&](const fs::path& directory) { context.save(directory, config, store); });
  finish_stage(out, "transfer",
               {"largest difference from what the teacher determines",
                transfer_error(teacher, config, store, args.init), 0, Gate::Kind::kAtMost},
               {{"init", word_of(kTransferInits, context.recipe().transfer.init)}, {"tokens", 0}});
}

void run_align(const StageContext& context, const fs::path& student, const fs::path& out) {
  Model model = context.load(student, ParameterStore::Use::kFrozen);
  ParameterStore mixers(all_mixer_parameters(model.config), ParameterStore::Use::kTrained,
                        context.machine().compute, context.machine().device);
  {
    at::NoGradGuard no_grad;
    for (const ParameterSpec& spec : mixers.specs()) {
      mixers.value(spec.name).copy_(model.store->value(spec.name));
    }
    mixers.refresh_compute();
  }
  align_mixers(context, "align", context.recipe().align, model.config, mixers, *model.store, out);
}

void run_align_attention(const StageContext& context, const fs::path& out) {
  const Model& teacher = context.teacher();
  const ModelConfig config =
      student_config(teacher.config, all_layers(teacher.config, MixerType::kAttention));
  ParameterStore model(decoder_parameters(config), ParameterStore::Use::kFrozen,
                       context.machine().compute, context.machine().device);
  ParameterStore mixers(all_mixer_parameters(config), ParameterStore::Use::kTrained,
                        context.machine().compute, context.machine().device);
  TransferArgs args = transfer_args(context, config);
  if (args.init != TransferInit::kRandom) args.init = TransferInit::kIdentity;
  transfer(teacher, config, model, args);
  transfer(teacher, config, mixers, args);
  align_mixers(context, "align-attention", context.recipe().align_attention, config, mixers, model,
               out);
}

std::vector<double> explained_variance(const StageContext& context,
                                       const std::vector<Mixer>& student) {
  at::NoGradGuard no_grad;
  HeldOutArgs args;
  args.part = TextPart::kSearch;
  args.row_length = context.recipe().align.sequence_length;
  args.max_tokens = 16'384;
  const TextBatches text = context.held_out_batches(args);
  const DecoderWeights& teacher = context.teacher().weights;
  struct Sums {
    at::Tensor error, output, square;  // [D] fp64
  };
  std::vector<Sums> sums(student.size());
  double tokens = 0;
  for (const TextBatches::Item& item : text.items()) {
    tokens += static_cast<double>(item.batch.tokens.size(0));
    decode_visiting(
        teacher, item.batch, [&](int64_t layer, const at::Tensor& x, const at::Tensor& y) {
          const at::Tensor target = y.to(at::kDouble);
          const at::Tensor got =
              run_mixer(student[layer], teacher.eps, x, item.batch, layer).to(at::kDouble);
          const Sums now{(got - target).square().sum(0), target.sum(0), target.square().sum(0)};
          Sums& s = sums[layer];
          s = s.error.defined()
                  ? Sums{s.error + now.error, s.output + now.output, s.square + now.square}
                  : now;
        });
  }
  std::vector<double> out;
  for (const Sums& s : sums) {
    const at::Tensor variance = s.square / tokens - (s.output / tokens).square();
    out.push_back(1 - (s.error.sum() / tokens / variance.sum()).item<double>());
  }
  return out;
}

}  // namespace halo
