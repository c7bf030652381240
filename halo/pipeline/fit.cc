#include "halo/pipeline/fit.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <utility>

#include "halo/base/nearest.h"
#include "halo/base/progress.h"
#include "halo/base/settings_io.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/pipeline/plan.h"
#include "halo/runtime/memory.h"
#include "halo/runtime/ranks.h"

namespace halo {
namespace {

constexpr double kGib = double(int64_t{1} << 30);

// GPUs: memory as they report it, and of the datasheets TFLOP/s, dense bf16 products with fp32 sums
// and fp32, and GB/s of the memory and of the links in one direction, NVLink or else PCIe; the
// major part of the compute capability.
struct Card {
  const char* name;
  double gib, bf16, fp32, memory, link;
  int64_t capability;
};
constexpr Card kCards[] = {
    {"h200", 139.8, 989, 67, 4800, 450, 9},       {"h100", 79.6, 989, 67, 3350, 450, 9},
    {"b200", 178, 2250, 75, 8000, 900, 10},       {"a100-80gb", 79.3, 312, 19.5, 2039, 300, 8},
    {"a100-40gb", 39.4, 312, 19.5, 1555, 300, 8}, {"l40s", 44.5, 362, 91.6, 864, 32, 8},
    {"rtx-4090", 23.6, 165, 82.6, 1008, 32, 8},   {"rtx-3090", 23.6, 71, 35.6, 936, 32, 8}};
// What large products reach of the bf16 figure: on an H200 750 of 989
// (comparisons/results/train-h200.json).
constexpr double kReached = 750.0 / 989.0;
// And what collectives usually reach of a link's; `halo bench comm` measures it.
constexpr double kLinkReached = 0.8;

Capacity capacity_of(const Card& card, const RunRecipe& run, const std::string& machine) {
  const double tflops = compute_type(run) == at::kBFloat16 ? kReached * card.bf16 : card.fp32;
  Links links;
  links.in_node = kLinkReached * card.link;
  links.network *= kLinkReached;
  return {machine,
          static_cast<int64_t>(card.gib * kGib),
          {1000 * tflops, card.memory},
          links,
          card.capability};
}

// "NVIDIA A100-SXM4-40GB" -> {nvidia, a100, sxm4, 40gb}
std::vector<std::string> words_of(const std::string& name) {
  std::vector<std::string> words(1);
  for (const unsigned char c : name) {
    if (std::isalnum(c) != 0) {
      words.back() += static_cast<char>(std::tolower(c));
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  return words;
}

std::string section_name(std::string stage) {
  std::ranges::replace(stage, '-', '_');
  return stage;
}

int64_t stage_memory(Recipe recipe, const std::vector<std::string>& settings,
                     const std::string& stage) {
  for (const std::string& assignment : settings) set_setting(recipe, assignment);
  const json::object planned = plan(recipe, 1);
  for (const json::value& value : planned.at("stages").as_array()) {
    if (value.at("stage").as_string() == stage) {
      return value.at("memory_bytes").to_number<int64_t>();
    }
  }
  throw_error("{}: the recipe gives this stage no tokens", stage);
}

// Behind settings that one rank a row may be trained with, the same with several.
void add_context_ranks(const Recipe& recipe, const std::string& stage,
                       std::vector<std::vector<std::string>>& settings) {
  Recipe with = recipe;
  const std::string key = section_name(stage) + ".context_ranks";
  if (!settings_of(with).find(key)) return;
  const std::vector<std::vector<std::string>> alone = settings;
  const int64_t ranks = num_ranks(recipe.run);
  ModelConfig student = read_model_config(recipe.teacher);
  student.lightning_learned_decay = recipe.transfer.learned_decay;
  for (int64_t n = 2; n <= ranks; ++n) {
    const std::string assignment = fmt::format("{}={}", key, n);
    set_setting(with, assignment);
    try {
      const TrainRecipe& train = find_stage(pipeline_stages(), stage).training->recipe(with);
      check_recipe(train, section_name(stage), ranks);
      check_context_ranks(n, student);
    } catch (const Error&) {
      continue;
    }
    for (const auto& one : alone) {
      settings.push_back(one);
      settings.back().push_back(assignment);
    }
  }
}

// All that may be tried for a stage, dearest last: fewer rows at a time cost little, recomputed
// activations a fifth of the rate, bf16 is another computation, and ranks that share rows must
// exchange them.
std::vector<std::vector<std::string>> sparing_settings(const Recipe& recipe,
                                                       const std::string& stage) {
  std::vector<std::vector<std::string>> variants = {{}}, out;
  const Stage& row = find_stage(pipeline_stages(), stage);
  if (!row.training) return variants;  // a calibrated start has no settings of its own
  const StageTraining& training = *row.training;
  if (training.whole_student && !recipe.run.activation_checkpointing) {
    variants.push_back({"run.activation_checkpointing=true"});
  }
  if (recipe.run.device == at::kCUDA && compute_type(recipe.run) == at::kFloat) {
    for (size_t i = 0, n = variants.size(); i < n; ++i) {
      variants.push_back(variants[i]);
      variants.back().push_back("run.compute=bfloat16");
    }
  }
  if (num_ranks(recipe.run) > 1) {
    // To divide the optimizer's state costs no time, to fetch weights little.
    if (recipe.run.shard == Shard::kNone) out.emplace_back();
    for (const auto& variant : std::exchange(variants, {})) {
      for (const Word<Shard>& shard : kShards) {
        if (shard.value == Shard::kNone || shard.value < recipe.run.shard) continue;
        variants.push_back(variant);
        if (shard.value == recipe.run.shard) continue;
        variants.back().insert(variants.back().begin(), fmt::format("run.shard={}", shard.word));
      }
    }
  }
  const TrainRecipe& train = training.recipe(recipe);
  const int64_t now = train.micro_batch_rows;
  // Ranks that divide layers divide the rows of a micro-batch too.
  const int64_t least = train.split == Split::kLayers ? num_ranks(recipe.run) : 1;
  for (const auto& variant : variants) {
    for (int64_t rows = now; rows >= 1 && (rows == now || rows % least == 0); rows /= 2) {
      out.push_back(variant);
      if (rows == now) continue;
      out.back().push_back(fmt::format("{}.micro_batch_rows={}", section_name(stage), rows));
    }
  }
  add_context_ranks(recipe, stage, out);
  return out;
}

}  // namespace

Capacity measure_capacity(const RunRecipe& run) {
  const Progress phase("measuring this machine");
  std::optional<Machine> machine;
  try {
    machine = open_machine(run);
  } catch (const Error&) {
    if (run.device != at::kCUDA) throw;
    return capacity_of(kCards[0], run, "an H200 (assumed: there is no GPU here)");
  }
  const int64_t memory = total_memory(*machine);
  return {machine->device_name,
          memory,
          {measure_matrix_gflops(*machine), memory_rate_of(machine->device_name, memory)},
          {},
          compute_capability(*machine)};
}

double memory_rate_of(const std::string& device, int64_t memory_bytes) {
  const std::vector<std::string> words = words_of(device);
  for (const char* other : {"pcie", "ti"}) {  // those have data sheets of their own
    if (std::ranges::find(words, other) != words.end()) return 0;
  }
  for (const Card& card : kCards) {
    const auto is_said = [&](const std::string& word) {
      return word.ends_with("gb") || std::ranges::find(words, word) != words.end();
    };
    // Of cards of one name, and of those sold with other memory, by what they report.
    const double gib = double(memory_bytes) / kGib;
    if (std::ranges::all_of(words_of(card.name), is_said) && std::abs(gib / card.gib - 1) < 0.05) {
      return card.memory;
    }
  }
  return 0;
}

std::vector<std::string> card_names() {
  std::vector<std::string> names;
  for (const Card& card : kCards) names.emplace_back(card.name);
  return names;
}

Capacity card_capacity(const std::string& name, const RunRecipe& run) {
  if (run.device != at::kCUDA) {
    throw_error(
        "--card {}: the recipe computes on the CPU; add --device cuda --compute bfloat16, or "
        "make one for a GPU by `halo init --device cuda`",
        name);
  }
  for (const Card& card : kCards) {
    if (name == card.name) return capacity_of(card, run, name);
  }
  throw_error("--card {}: unknown; did you mean '{}'? ({}; or give --memory and --gflops)", name,
              nearest(name, card_names()), fmt::join(card_names(), " | "));
}

std::optional<std::vector<std::string>> settings_that_fit(const Recipe& recipe,
                                                          const std::string& stage, int64_t bytes) {
  for (const auto& settings : sparing_settings(recipe, stage)) {
    if (stage_memory(recipe, settings, stage) <= bytes) return settings;
  }
  return std::nullopt;
}

std::optional<std::vector<std::string>> cheapest_setting(const Recipe& recipe,
                                                         const Capacity& capacity) {
  std::vector<std::string> all;
  Recipe with = recipe;
  for (const Stage* stage : wanted_stages(pipeline_stages(), recipe)) {
    if (!stage->training) continue;
    const auto settings = settings_that_fit(with, stage->name, capacity.usable_bytes());
    if (!settings) return std::nullopt;
    for (const std::string& assignment : *settings) {
      set_setting(with, assignment);
      // What a stage before did with less of.
      const std::string key = assignment.substr(0, assignment.find('=') + 1);
      std::erase_if(all, [&](const std::string& before) { return before.starts_with(key); });
      all.push_back(assignment);
    }
  }
  return all;
}

int64_t compute_capability(const Machine& machine) {
  if (machine.device.is_cpu()) return 0;
  return compute_capability(at::empty({0}, at::TensorOptions().device(machine.device)));
}

std::string lacking(const Recipe& recipe, const std::string& device, int64_t compute_capability) {
  if (recipe.distill.teacher_products != TeacherProducts::kFp8) return "";
  if (compute_capability == 0 || compute_capability >= 9) return "";
  return fmt::format(
      "distill.teacher_products: 'fp8' needs a GPU since Hopper (compute capability 9), and this "
      "is {} (of {}); leave it out",
      device, compute_capability);
}

json::object check_fit(const Recipe& recipe, const json::object& plan, const Capacity& capacity) {
  json::array too_large;
  for (const json::value& value : plan.at("stages").as_array()) {
    const int64_t bytes = value.at("memory_bytes").to_number<int64_t>();
    if (bytes <= capacity.usable_bytes()) continue;
    const std::string stage(value.at("stage").as_string());
    const auto settings = settings_that_fit(recipe, stage, capacity.usable_bytes());
    int64_t least = bytes;
    for (const auto& sparing : sparing_settings(recipe, stage)) {
      least = std::min(least, stage_memory(recipe, sparing, stage));
    }
    too_large.push_back(
        json::object{{"stage", stage},
                     {"memory_bytes", bytes},
                     {"settings", settings ? json::value_from(*settings) : json::value()},
                     {"least_bytes", least}});
  }
  const std::string lacks = lacking(recipe, capacity.machine, capacity.compute_capability);
  return {{"machine", capacity.machine},
          {"memory_bytes", capacity.memory_bytes},
          {"usable_bytes", capacity.usable_bytes()},
          {"fits", too_large.empty() && lacks.empty()},
          {"lacks", lacks.empty() ? json::value() : json::value(lacks)},
          {"stages", too_large}};
}

std::string format_fit(const json::object& fit) {
  std::string out = fmt::format("{}: {:.1f} GiB of memory, {:.1f} of them for tensors: {}\n",
                                std::string(fit.at("machine").as_string()),
                                fit.at("memory_bytes").to_number<double>() / kGib,
                                fit.at("usable_bytes").to_number<double>() / kGib,
                                fit.at("fits").as_bool() ? "every stage fits" : "it does not fit");
  if (const json::value& lacks = fit.at("lacks"); lacks.is_string()) {
    out += fmt::format("  {}\n", std::string(lacks.as_string()));
  }
  for (const json::value& value : fit.at("stages").as_array()) {
    const std::string stage(value.at("stage").as_string());
    if (value.at("settings").is_null() && stage == "transfer") {
      out += fmt::format(
          "  transfer needs {:.1f} GiB: one device trains a calibrated start alone; it would fit "
          "with --set transfer.calibration_steps=0\n",
          value.at("least_bytes").to_number<double>() / kGib);
      continue;
    }
    if (value.at("settings").is_null()) {
      out += fmt::format(
          "  {} needs {:.1f} GiB even with one row at a time and activation checkpointing: more "
          "than one such device has; several may have it together (--gpus)\n",
          stage, value.at("least_bytes").to_number<double>() / kGib);
      continue;
    }
    out += fmt::format("  {} needs {:.1f} GiB; it would fit with", stage,
                       value.at("memory_bytes").to_number<double>() / kGib);
    for (const json::value& setting : value.at("settings").as_array()) {
      out += " --set " + std::string(setting.as_string());
    }
    out += "\n";
  }
  return out;
}

}  // namespace halo
