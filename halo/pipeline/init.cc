#include "halo/pipeline/init.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "halo/base/check.h"
#include "halo/base/settings_io.h"
#include "halo/data/loader.h"
#include "halo/formats/model_config.h"
#include "halo/formats/token_shard.h"
#include "halo/model/decoder.h"
#include "halo/pipeline/stage.h"
#include "halo/stages/transfer.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

// The size that the published settings are for.
constexpr double kPublishedParameters = 1.72e9;

// Peak rates of stages 1 and 2 that were measured to work: the demo's teacher and SmolLM2
// (docs/results), then the published ones.
struct Rates {
  double parameters, align, distill;
};
constexpr std::array kRates = {
    Rates{4e6, 3e-3, 1e-3}, Rates{135e6, 3e-3, 5e-4}, Rates{kPublishedParameters, 1e-3, 1e-4},
    Rates{4e9, 1e-3, 5e-5}, Rates{8.2e9, 1e-3, 3e-5},
};

double two_digits(double value) {
  return std::stod(fmt::format("{:.2g}", value));
}

// Tokens of a stage: the published ones, or for a smaller model that share of them.
int64_t budget(double share, double published, double least) {
  return static_cast<int64_t>(share < 1 ? std::max(least, two_digits(share * published))
                                        : published);
}

// Between two measured sizes on a line in logarithms; beyond them that of the nearest.
Rates rates_for(double parameters) {
  if (parameters <= kRates.front().parameters) return kRates.front();
  for (size_t i = 1; i < kRates.size(); ++i) {
    const Rates &low = kRates[i - 1], &high = kRates[i];
    if (parameters > high.parameters) continue;
    const double share =
        std::log(parameters / low.parameters) / std::log(high.parameters / low.parameters);
    const auto between = [share](double a, double b) {
      return two_digits(std::exp(std::log(a) + share * (std::log(b) - std::log(a))));
    };
    return {parameters, between(low.align, high.align), between(low.distill, high.distill)};
  }
  return kRates.back();
}

int64_t power_of_two_below(int64_t n) {
  int64_t power = 1;
  while (2 * power <= n) power *= 2;
  return power;
}

void set_stage(TrainRecipe& stage, int64_t tokens, int64_t length, int64_t tokens_per_step,
               int64_t tokens_at_a_time) {
  stage.sequence_length = length;
  stage.tokens_per_step = std::max(length, tokens_per_step / length * length);
  stage.tokens = tokens;
  stage.micro_batch_rows = std::clamp<int64_t>(tokens_at_a_time / length, 1, stage.rows_per_step());
  stage.warmup_steps = std::min<int64_t>(50, stage.steps() / 10);
}

// Fewer rows at a time and activation checkpointing until each stage fits; stages that cannot are
// left for `halo plan` to name.
void fit_to_memory(Recipe& recipe, int64_t bytes) {
  for (const Stage& stage : pipeline_stages()) {
    if (!stage.training || !is_wanted(stage, recipe)) continue;
    const auto settings = settings_that_fit(recipe, stage.name, bytes);
    if (!settings) continue;
    for (const std::string& assignment : *settings) set_setting(recipe, assignment);
  }
}

Recipe settings_for(const InitArgs& args, const ModelConfig& teacher, double parameters) {
  Recipe r;
  r.teacher = args.teacher.string();
  r.run = args.run;
  const bool small = parameters < 1e9;
  const double share = std::min(1.0, parameters / kPublishedParameters);
  const int64_t positions =
      power_of_two_below(std::max<int64_t>(teacher.max_position_embeddings, 64));
  const int64_t length = std::min<int64_t>(positions, small ? 1024 : 512);
  const int64_t long_length = std::min<int64_t>(positions, 16'384);
  const int64_t at_a_time = args.run.device == at::kCUDA ? 8192 : 2048;
  const int64_t step = parameters < 50e6 ? 8192 : 16'384;
  const int64_t align_tokens = budget(share, 327'680'000, 8e6);
  set_stage(r.align, align_tokens, length, step, 2 * at_a_time);
  set_stage(r.align_attention, align_tokens / (teacher.attn_use_qk_norm ? 8 : 2), length, step,
            2 * at_a_time);
  set_stage(r.distill, budget(share, 983'040'000, 16e6), length, small ? step : 49'152, at_a_time);
  set_stage(r.finetune, budget(share, 1'048'576'000, 0), long_length, small ? 262'144 : 2'097'152,
            at_a_time);
  if (long_length < 4 * length) r.finetune.tokens = 0;
  const Rates rates = rates_for(parameters);
  r.align.learning_rate = r.align_attention.learning_rate = rates.align;
  r.distill.learning_rate = rates.distill;
  r.align.min_learning_rate = r.align_attention.min_learning_rate = small ? 6e-5 : 1e-5;
  r.distill.min_learning_rate = small ? 2e-5 : 1e-5;
  fit_to_memory(r, args.capacity.usable_bytes());
  return r;
}

bool is_shards(const std::string& entry) {
  if (fs::is_directory(entry)) {
    return std::ranges::any_of(fs::directory_iterator(entry), [](const auto& file) {
      return file.path().extension() == ".halotok";
    });
  }
  return entry.ends_with(".halotok");
}

// Where the text comes from: what goes into [data] and [eval], and what is left to do.
struct Text {
  std::vector<std::string> shards;
  std::string held_out;
  int64_t tokens = 0;  // of the shards; 0: not packed yet
  std::vector<std::string> notes;
};

std::vector<fs::path> files_of(const std::vector<std::string>& entries) {
  std::vector<fs::path> files;
  for (const std::string& entry : entries) {
    for (fs::path& path : expand_shards(entry)) files.push_back(std::move(path));
  }
  return files;
}

// Nothing of the last entry is trained on; of a single one, nothing of its last file.
Text from_shards(std::vector<std::string> data) {
  Text text;
  std::vector<fs::path> held_out;
  if (data.size() > 1) {
    held_out = expand_shards(data.back());
    data.pop_back();
  }
  std::vector<fs::path> files = files_of(data);
  if (held_out.empty() && files.size() > 1) {
    held_out = {files.back()};
    files.pop_back();
  }
  if (held_out.empty()) {
    text.notes.push_back(
        "There is one shard only. Pack other text with `halo data pack` and name it in "
        "eval.held_out before `halo convert`.");
  } else {
    text.held_out = held_out.front().string();
    text.notes.push_back(fmt::format("{} is held out: no stage trains on it.", text.held_out));
  }
  if (held_out.size() > 1) {
    text.notes.push_back(
        fmt::format("So are the {} shards after it, which nothing reads.", held_out.size() - 1));
  }
  for (const fs::path& path : files) {
    text.shards.push_back(path.string());
    text.tokens += TokenShard(path).header().num_tokens;
  }
  return text;
}

Text from_text(const std::vector<std::string>& data, const std::string& teacher) {
  Text text;
  text.shards = {"shards/train"};
  text.held_out = "shards/held-out";
  std::vector<std::string> train = data;
  std::string held_out = "HELD-OUT-TEXT";
  if (data.size() > 1) {
    held_out = train.back();
    train.pop_back();
  } else {
    text.notes.push_back(
        "There is one input only: put some of its documents into a file of their own, "
        "HELD-OUT-TEXT below. No stage trains on them.");
  }
  text.notes.push_back("Pack the text before `halo convert`:");
  for (const auto& [inputs, shards] :
       {std::pair{fmt::format("{}", fmt::join(train, " ")), text.shards.front()},
        std::pair{held_out, text.held_out}}) {
    text.notes.push_back(fmt::format("  halo data pack {} --tokenizer {} --out {} --join-sources",
                                     inputs, teacher, shards));
  }
  return text;
}

Text find_text(const InitArgs& args) {
  size_t shards = 0;
  for (const std::string& entry : args.data) {
    if (is_shards(entry)) {
      ++shards;
    } else if (!fs::exists(entry)) {
      throw_error("{}: no such file or folder; --data takes text or token shards", entry);
    }
  }
  if (shards > 0 && shards < args.data.size()) {
    throw_error("--data: some paths are token shards and some are text; pack the text first");
  }
  return shards > 0 ? from_shards(args.data) : from_text(args.data, args.teacher.string());
}

std::string list(const std::vector<std::string>& words) {
  return json::serialize(json::value_from(words));
}

std::string quoted(const std::string& text) {
  return json::serialize(json::value(text));
}

std::string stage_text(const TrainRecipe& stage) {
  std::string out = fmt::format("tokens = {}\n", stage.tokens);
  if (stage.tokens == 0) return out;
  return out + fmt::format(
                   "sequence_length = {}\ntokens_per_step = {}\nmicro_batch_rows = {}\n"
                   "learning_rate = {}\nmin_learning_rate = {}\nwarmup_steps = {}\n"
                   "checkpoint_every = {}\n",
                   stage.sequence_length, stage.tokens_per_step, stage.micro_batch_rows,
                   stage.learning_rate, stage.min_learning_rate, stage.warmup_steps,
                   std::max<int64_t>(1, stage.steps() / 10));
}

std::string head_text(const InitArgs& args, const Recipe& r, const Text& text, double parameters) {
  std::string out = fmt::format(
      "# A recipe for {} ({:.4g}M parameters), made by `halo init` for {} with {:.0f} GiB.\n"
      "#   halo plan THIS-FILE                   what it takes\n"
      "#   halo convert THIS-FILE --run RUN      the conversion; --resume goes on with it\n"
      "# docs/formats/recipe.md has every key; what is not here has its default.\n",
      r.teacher, parameters / 1e6, args.capacity.machine,
      double(args.capacity.memory_bytes) / double(int64_t{1} << 30));
  for (const std::string& note : text.notes) out += "# " + note + "\n";
  out += fmt::format(
      "teacher = {}\n\n[run]\nseed = 1\ndevice = {}\ncompute = {}\n", quoted(r.teacher),
      quoted(std::string(word_of<at::DeviceType>(kDevices, r.run.device))),
      quoted(std::string(word_of<std::optional<at::ScalarType>>(kComputeTypes, r.run.compute))));
  if (r.run.activation_checkpointing) {
    out += "activation_checkpointing = true  # the memory asks for it; the same bits, slower\n";
  }
  out += fmt::format(
      "\n[data]\nshards = {}\n# A student that never sees needle documents (a number hidden in "
      "text, asked for at the end)\n# finds them at its training length and not beyond.\n"
      "needle_share = 0.25\nanswer_weight = 0.25\n",
      list(text.shards));
  if (text.tokens > 0) {
    out += fmt::format("# The shards hold {} tokens; stage 2 reads {:.2g} times as many.\n",
                       text.tokens, double(r.distill.tokens) / double(text.tokens));
  }
  return out;
}

}  // namespace

InitialRecipe make_recipe(const InitArgs& args) {
  const ModelConfig teacher = read_model_config(args.teacher);
  // Refuses what cannot be converted.
  student_config(teacher,
                 std::vector<MixerType>(teacher.mixer_types.size(), MixerType::kLightning));
  const double parameters = double(num_parameters(decoder_parameters(teacher)));
  const Text text = find_text(args);
  const Recipe r = settings_for(args, teacher, parameters);
  std::string out = head_text(args, r, text, parameters);
  out +=
      "\n# Stage 1: each lightning mixer learns what its attention layer puts out. The published "
      "budget in\n# proportion to the model's size, at least 8M tokens; the rate by size.\n"
      "[align]\n" +
      stage_text(r.align);
  out += fmt::format(
      "\n# Stage 1b: attention without positions learns the same. {}\n[align_attention]\n{}",
      teacher.attn_use_qk_norm ? "An eighth of stage 1."
                               : "Half of stage 1: a teacher without QK-norm needs it.",
      stage_text(r.align_attention));
  out +=
      "\n# Stage 2: the student learns the teacher's distribution; at least 16M tokens.\n"
      "[distill]\n" +
      stage_text(r.distill);
  out += r.finetune.tokens > 0 ? "\n# Stage 3: next token on long documents.\n[finetune]\n"
                               : "\n# Stage 3 is left out: the teacher has seen no long text, and "
                                 "its student gains nothing by it.\n[finetune]\n";
  out += stage_text(r.finetune);
  out += fmt::format(
      "\n[eval]\n# Text that no stage trains on: layers and the logit scale are chosen on its "
      "first "
      "half, figures\n# come from the second.\nheld_out = {}\n",
      quoted(text.held_out));
  return {out, text.notes};
}

}  // namespace halo
