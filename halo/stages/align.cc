// Stages 0, 1 and 1b: transfer and alignment, layer by layer, to the teacher's mixers.
#include "halo/stages/align.h"

#include <algorithm>
#include <functional>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/median.h"
#include "halo/base/progress.h"
#include "halo/model/layer_sharing.h"
#include "halo/stages/losses.h"
#include "halo/stages/training_stage.h"
#include "halo/train/checkpoint.h"

namespace halo {
namespace {

constexpr const char* kCalibration = "calibration";

// Of a student with mixers of this type in every layer.
ModelConfig student_of_one_kind(const StageContext& context, const TransferRecipe& recipe,
                                MixerType type) {
  const ModelConfig& teacher = context.teacher_config();
  return student_config(teacher, with_mixers(teacher, type).mixer_types, recipe.learned_decay);
}

TransferArgs transfer_args(const TransferRecipe& recipe, const StageContext& context,
                           const ModelConfig& student) {
  TransferArgs args;
  args.init = recipe.init;
  args.seed = context.seed();
  if (const int64_t tokens = default_calibration_tokens(args.init); tokens > 0) {
    args.calibration = context.calibration(
        "transfer", recipe.calibration_tokens > 0 ? recipe.calibration_tokens : tokens);
  }
  if (needs_qk_calibration(context.teacher_config(), student)) {
    args.qk_calibration = context.calibration("transfer", recipe.qk_norm_tokens);
  }
  return args;
}

// A trained store of the mixers alone, with values that the caller gives by name.
ParameterStore make_trained_mixers(
    const StageContext& context, const ModelConfig& config, Split split,
    const std::function<at::Tensor(const std::string& name)>& value_of) {
  Sharing sharing = context.sharing();
  sharing.by_layer = split == Split::kLayers;
  ParameterStore mixers(all_mixer_parameters(config), ParameterStore::Use::kTrained,
                        context.machine().compute, context.machine().device, sharing);
  for (const ParameterSpec& spec : mixers.specs()) mixers.write(spec.name, value_of(spec.name));
  return mixers;
}

// Trains the mixers of `student` for so many steps towards the teacher's, each layer clipped and
// normalised alone, in OUT/calibration; by the first rank alone. Returns the tokens it took.
int64_t calibrate_mixers(const TransferRecipe& recipe, const StageContext& context,
                         const StageArgs& args, const ModelConfig& config,
                         ParameterStore& student) {
  const TrainRecipe train = calibration_training(recipe, context.row_length());
  ParameterStore mixers(all_mixer_parameters(config), ParameterStore::Use::kTrained,
                        context.machine().compute, context.machine().device);
  for (const ParameterSpec& spec : mixers.specs())
    mixers.write(spec.name, student.value(spec.name));
  DataRecipe text = context.data();
  text.needle_share = 0;
  const Loader loader = context.loader(text, train, "transfer.steps");
  TrainJob job = context.job(args, train, loader, mixers, config);
  job.title = "transfer: calibration";
  job.directory = args.out / kCalibration;
  job.data_id = data_hash(text);
  job.forward_backward = align_step(bind_mixers(config, mixers), mixers, context.teacher().weights,
                                    context.machine(), train.clip_mode);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    job.extra_metrics.push_back(fmt::format("layer_{}", layer));
  }
  job.model.write_side_files = [](const fs::path&) {};  // its state says all
  halo::train(job);
  at::NoGradGuard no_grad;
  for (const ParameterSpec& spec : mixers.specs()) {
    student.value(spec.name).copy_(mixers.value(spec.name));
  }
  student.refresh_compute();
  return train.tokens;
}

// Trains the mixers in `trained` (a store of mixers alone) towards the teacher's and writes whole
// models: everything else comes from `rest`, which is on the CPU, for nothing runs it.
void align_mixers(const TrainRecipe& train, const StageContext& context, const StageArgs& args,
                  const ModelConfig& config, ParameterStore& trained, const ParameterStore& rest) {
  const Loader loader = context.loader(context.data(), train, args.name);
  ModelConfig unscaled = config;
  unscaled.attn_logits_scaling = {};  // an inference-time setting, off in every training stage
  const std::vector<Mixer> mixers = bind_mixers(unscaled, trained);
  TrainJob job = context.job(args, train, loader, trained, config);
  job.forward_backward = align_step(mixers, trained, context.training_teacher().weights,
                                    context.machine(), train.clip_mode);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    job.extra_metrics.push_back(fmt::format("layer_{}", layer));
  }
  job.model.rest = &rest;
  const TrainResult result = halo::train(job);
  if (!context.takes_part() && !trained.has_layers_alone()) return;

  const std::vector<double> variance = explained_variance(context, mixers, trained);
  if (!context.ranks().is_first()) return;
  const auto worst = std::min_element(variance.begin(), variance.end()) - variance.begin();
  json::array layers;
  for (double v : variance) layers.push_back(number_or_null(v));
  finish_stage(
      args,
      {"median over layers of held-out explained variance", median(variance), Gate::Kind::kAtLeast},
      {{"explained_variance", layers},
       {"worst_layer", worst},
       {"first_loss", result.first_loss},
       {"last_loss", result.last_loss},
       {"tokens", train.steps() * train.tokens_per_step},
       {"skipped_steps", result.skipped},
       {"seconds", result.seconds}});
}

}  // namespace

AlignRecipe::AlignRecipe() {
  tokens = 327'680'000;
}

AlignAttentionRecipe::AlignAttentionRecipe() {
  tokens = 0;
}

bool trains_calibration(const TransferRecipe& recipe) {
  return recipe.init == TransferInit::kCalibrated && recipe.calibration_steps > 0;
}

TrainRecipe calibration_training(const TransferRecipe& recipe, int64_t row_length) {
  constexpr int64_t kTokensPerStep = 2048;
  TrainRecipe train;
  train.sequence_length = row_length;
  train.tokens_per_step = std::max<int64_t>(1, kTokensPerStep / row_length) * row_length;
  train.tokens = recipe.calibration_steps * train.tokens_per_step;
  train.micro_batch_rows = 2;
  train.warmup_steps = std::min<int64_t>(10, recipe.calibration_steps - 1);
  train.clip_mode = ClipMode::kPerLayer;
  return train;
}

void run_transfer(const TransferRecipe& recipe, const StageContext& context,
                  const StageArgs& args) {
  std::optional<Progress> phase(args.name);
  const ModelConfig config = student_of_one_kind(context, recipe, MixerType::kLightning);
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen,
                       context.machine().compute, context.machine().device);
  const TransferArgs how = transfer_args(recipe, context, config);
  transfer(context.teacher(), config, store, how);
  int64_t tokens = 0;
  if (trains_calibration(recipe)) {
    phase.reset();
    tokens = calibrate_mixers(recipe, context, args, config, store);
  }
  json::object figures{{"init", word_of(kTransferInits, recipe.init)}, {"tokens", tokens}};
  if (context.has_held_out()) {
    const TextScores scores = held_out_scores(context, context.teacher().weights,
                                              bind_decoder(config, store), context.row_length());
    figures["held_out_loss"] = number_or_null(mean_loss(scores).mean);
    figures["held_out_kl"] = number_or_null(mean_kl(scores).mean);
  }
  commit_directory(args.out / "step-0",
                   [&](const fs::path& directory) { context.save(directory, config, store); });
  finish_stage(args,
               {"largest difference from what the teacher determines",
                transfer_error(context.teacher(), config, store, how.init), Gate::Kind::kAtMost},
               figures);
  // Behind the result, without which they are gone on with.
  if (tokens > 0) {
    const Checkpoints done(args.out / kCalibration, 2);
    for (const int64_t step : done.steps()) fs::remove_all(done.path(step));
  }
}

void run_align(const AlignRecipe& recipe, const StageContext& context, const StageArgs& args) {
  Model model = context.load_student(args.inputs[0], at::kCPU);
  ParameterStore mixers =
      make_trained_mixers(context, model.config, recipe.split,
                          [&](const std::string& name) { return model.store->value(name); });
  align_mixers(recipe, context, args, model.config, mixers, *model.store);
}

void run_align_attention(const AlignAttentionRecipe& recipe, const TransferRecipe& transfer_recipe,
                         const StageContext& context, const StageArgs& args) {
  const Progress phase(args.name);
  const ModelConfig config = student_of_one_kind(context, transfer_recipe, MixerType::kAttention);
  // Attention is fitted to no text.
  TransferRecipe plain = transfer_recipe;
  if (plain.init != TransferInit::kRandom) plain.init = TransferInit::kIdentity;
  const TransferArgs how = transfer_args(plain, context, config);
  const auto start = [&](const std::vector<ParameterSpec>& specs, ParameterStore::Use use) {
    ParameterStore store(specs, use, context.machine().compute, context.machine().device);
    transfer(context.teacher(), config, store, how);
    return store;
  };
  ParameterStore rest(decoder_parameters(config), ParameterStore::Use::kFrozen,
                      context.machine().compute, at::kCPU);
  {
    const ParameterStore model = start(decoder_parameters(config), ParameterStore::Use::kFrozen);
    for (const ParameterSpec& spec : rest.specs()) rest.write(spec.name, model.value(spec.name));
  }
  ParameterStore mixers = [&] {
    const ParameterStore whole = start(all_mixer_parameters(config), ParameterStore::Use::kTrained);
    return make_trained_mixers(context, config, recipe.split,
                               [&](const std::string& name) { return whole.value(name); });
  }();
  align_mixers(recipe, context, args, config, mixers, rest);
}

std::vector<double> explained_variance(const StageContext& context,
                                       const std::vector<Mixer>& student,
                                       const ParameterStore& trained) {
  at::NoGradGuard no_grad;
  const std::shared_ptr<LayerSharing>& sharing = trained.layers();
  const Progress phase("held-out explained variance");
  HeldOutArgs args;
  args.part = TextPart::kSearch;
  args.row_length = context.row_length();
  args.max_tokens = 16'384;
  const TextBatches text = context.held_out_batches(args);
  const DecoderWeights& teacher = context.training_teacher().weights;
  struct Sums {
    at::Tensor error, output, square;  // [D] fp64
  };
  std::vector<Sums> sums(student.size());
  double tokens = 0;
  for (const TextBatches::Item& item : text.items()) {
    tokens += static_cast<double>(item.batch.tokens.size(0));
    decode_visiting(
        teacher, item.batch, [&](int64_t layer, const at::Tensor& x, const at::Tensor& y) {
          if (!trained.has_layer(layer)) return;
          const at::Tensor target = y.to(at::kDouble);
          if (sharing) sharing->acquire(layer, layer + 1, /*gradient=*/false);
          const at::Tensor got =
              run_mixer(student[layer], teacher.eps, x, item.batch, layer).to(at::kDouble);
          if (sharing) sharing->release(layer);
          const Sums now{(got - target).square().sum(0), target.sum(0), target.square().sum(0)};
          Sums& s = sums[layer];
          s = s.error.defined()
                  ? Sums{s.error + now.error, s.output + now.output, s.square + now.square}
                  : now;
        });
  }
  std::vector<double> out;
  for (const Sums& s : sums) {
    if (!s.error.defined()) {  // another rank's
      out.push_back(0);
      continue;
    }
    const at::Tensor variance = s.square / tokens - (s.output / tokens).square();
    out.push_back(1 - (s.error.sum() / tokens / variance.sum()).item<double>());
  }
  if (!trained.has_layers_alone()) return out;
  trained.ranks().wait();
  return trained.ranks().sum(out);
}

}  // namespace halo
