#include "halo/pipeline/checks.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "halo/base/progress.h"
#include "halo/eval/needle.h"
#include "halo/formats/safetensors.h"
#include "halo/pipeline/fit.h"
#include "halo/runtime/ranks.h"
#include "halo/stages/choose_layers.h"
#include "halo/stages/scale_rule.h"
#include "halo/stages/training_stage.h"
#include "halo/stages/transfer.h"

namespace halo {
namespace {

// Runs `check`; what it throws is said of the key, if it does not say so itself.
template <class F>
auto by_key(const std::string& key, F check) {
  try {
    return check();
  } catch (const Error& error) {
    const std::string what = error.what();
    const std::string section = key.substr(0, key.find('.') + 1);
    if (what.starts_with(key) || (!section.empty() && what.starts_with(section))) throw;
    throw_error("{}: {}", key, what);
  }
}

template <class T>
void refuse_twice(const std::string& file, const std::string& key, const std::vector<T>& values) {
  std::set<T> seen;
  for (const T& value : values) {
    if (!seen.insert(value).second) throw_error("{}: {}: {} is given twice", file, key, value);
  }
}

// Each question on a haystack asks for a key word of its own.
void check_questions(const std::string& file, const std::string& key, int64_t questions,
                     NeedlePool pool) {
  const int64_t words = std::ssize(NeedleWriter::keys(pool));
  if (questions > words) {
    throw_error("{}: {}: {}, but there are {} key words; take more haystacks instead", file, key,
                questions, words);
  }
}

// Needle lengths of the recipe by their key. All of them are in front of the wanted stages' own.
struct Lengths {
  std::string key;
  std::vector<int64_t> lengths;
  NeedlePool pool;
};

std::string key_of(const std::string& key, bool is_given) {
  return is_given ? key : key + " by default";
}

std::vector<Lengths> needle_lengths(const Recipe& recipe, int64_t row_length,
                                    int64_t training_length) {
  return {{key_of("select.needle_length", recipe.select.needle_length > 0),
           {recipe.select.needle_length > 0 ? recipe.select.needle_length : row_length},
           NeedlePool::kSearch},
          {key_of("scale.lengths", !recipe.scale.lengths.empty()),
           lengths_beyond(recipe.scale.lengths, recipe.scale.training_length > 0
                                                    ? recipe.scale.training_length
                                                    : training_length),
           NeedlePool::kSearch},
          {key_of("eval.lengths", !recipe.eval.lengths.empty()),
           report_lengths(recipe.eval, training_length), NeedlePool::kReport}};
}

void check_shortest(const Recipe& recipe, const NeedleWriter& needles,
                    const std::vector<Lengths>& all, std::span<const Stage> stages) {
  for (const Lengths& about : all) check_shortest_needles(about.key, needles, about.lengths);
  if (recipe.data.needle_share == 0) return;
  const int64_t least = needles.min_length();
  for (const Stage& stage : stages) {
    if (!stage.training || stage.training->writes || !is_wanted(stage, recipe)) continue;
    const int64_t length = stage.training->recipe(recipe).sequence_length;
    if (length < least) {
      throw_error(
          "{}.sequence_length: {}, but a needle document (data.needle_share) takes {} tokens",
          section_of(stage), length, least);
    }
  }
}

// The report's rows of held-out text; each stage's row of the table has its own.
void check_report(const Recipe& recipe, const StageInputs& inputs,
                  const std::vector<int64_t>& lengths) {
  HeldOutArgs args;
  args.row_length = inputs.training_length();
  check_held_out_text("eval.held_out", inputs.held_out(), args);
  args.rows = TextRows::kStream;
  args.row_length = std::ranges::max(lengths);
  check_held_out_text(key_of("eval.lengths", !recipe.eval.lengths.empty()), inputs.held_out(),
                      args);
}

// Refuses or notes what `entries` of `key` name and is not there.
bool find_shards(const std::string& key, const std::vector<std::string>& entries, Missing missing,
                 std::vector<std::string>& unchecked) {
  bool found = true;
  for (const std::string& entry : entries) {
    try {
      by_key(key, [&] { return expand_shards(entry); });
    } catch (const Error& error) {
      if (missing == Missing::kRefused) throw;
      unchecked.push_back(error.what());
      found = false;
    }
  }
  return found;
}

bool find_teacher_files(const fs::path& teacher, Missing missing,
                        std::vector<std::string>& unchecked) {
  by_key("teacher", [&] {
    try {
      WeightFiles weights(teacher);
    } catch (const Error& error) {
      if (missing == Missing::kRefused) throw;
      unchecked.push_back(fmt::format("teacher: {}", error.what()));
    }
  });
  const fs::path tokenizer = teacher / "tokenizer.json";
  if (fs::exists(tokenizer)) return true;
  const std::string sentence = fmt::format(
      "teacher: {} is not there: needles and text cannot be looked at", tokenizer.string());
  if (missing == Missing::kRefused) throw Error(sentence);
  unchecked.push_back(sentence);
  return false;
}

void check_fp8_sizes(const ModelConfig& teacher) {
  const int64_t head = teacher.head_dim;
  for (const auto& [name, size] :
       {std::pair("hidden_size", teacher.hidden_size),
        std::pair("intermediate_size", teacher.intermediate_size),
        std::pair("num_attention_heads x head_dim", teacher.num_heads * head),
        std::pair("num_key_value_heads x head_dim", teacher.num_kv_heads * head)}) {
    if (size % 16 == 0) continue;
    throw_error(
        "distill.teacher_products: 'fp8' needs matrices of sizes that 16 divides; the teacher's "
        "{} is {}; leave it out",
        name, size);
  }
}

}  // namespace

void check_device(const Recipe& recipe, const Machine& machine) {
  const std::string lacks = lacking(recipe, machine.device_name, compute_capability(machine));
  if (!lacks.empty()) throw Error(lacks);
}

void check_settings(const Recipe& recipe, const std::string& file) {
  if (recipe.distill.teacher_products == TeacherProducts::kFp8 &&
      (recipe.run.device != at::kCUDA || compute_type(recipe.run) != at::kBFloat16 ||
       recipe.run.shard == Shard::kFull)) {
    throw_error(
        "{}: distill.teacher_products: 'fp8' is for run.device = 'cuda', run.compute = 'bfloat16' "
        "and a run.shard other than 'full'; leave it out",
        file);
  }
  for (const Stage& stage : pipeline_stages()) {
    if (!stage.training || !is_wanted(stage, recipe)) continue;
    check_recipe(stage.training->recipe(recipe), section_of(stage), num_ranks(recipe.run));
  }
  if (recipe.on_policy.tokens > 0) check_recipe(recipe.on_policy);
  if (recipe.finetune.tokens > 0) {
    check_frozen("finetune", recipe.finetune.freeze_attention, recipe.finetune);
  }
  check_recipe(recipe.select, file);
  check_recipe(recipe.scale, file);
  check_questions(file, "select.needle_questions", recipe.select.needle_questions,
                  NeedlePool::kSearch);
  check_questions(file, "scale.questions", recipe.scale.questions, NeedlePool::kSearch);
  check_questions(file, "eval.questions", recipe.eval.questions, NeedlePool::kReport);
  refuse_twice(file, "scale.candidates", recipe.scale.candidates);
  refuse_twice(file, "scale.lengths", recipe.scale.lengths);
  refuse_twice(file, "eval.lengths", recipe.eval.lengths);
  if (recipe.run.kernels == Kernels::kReference && recipe.run.device != at::kCPU) {
    throw_error("{}: run.kernels: 'reference' runs on the CPU; take 'fast', or run.device = 'cpu'",
                file);
  }
  if (recipe.eval.engine.invariant && recipe.run.device != at::kCPU) {
    throw_error(
        "{}: eval.invariant: there is no such form on a GPU; leave it out, or take "
        "run.device = 'cpu'",
        file);
  }
}

std::vector<std::string> repeated_text(const Recipe& recipe, std::span<const Stage> stages) {
  constexpr double kMostTimes = 4;
  // Each entry by its weight, or without weights all of them as one text.
  const DataRecipe& data = recipe.data;
  const bool weighted = !data.weights.empty();
  const double sum = std::accumulate(data.weights.begin(), data.weights.end(), 0.0);
  std::vector<std::pair<double, int64_t>> parts;  // share of the text, its tokens
  for (size_t i = 0; i < data.shards.size(); ++i) {
    if (weighted || i == 0) parts.emplace_back(weighted ? data.weights[i] / sum : 1, 0);
    for (const fs::path& path : expand_shards(data.shards[i])) {
      parts.back().second += TokenShard(path).header().num_tokens;
    }
  }
  std::vector<std::string> sentences;
  for (const Stage& stage : stages) {
    if (!stage.training || stage.training->writes || !is_wanted(stage, recipe)) continue;
    const TrainRecipe& train = stage.training->recipe(recipe);
    const double read =
        double(train.steps()) * double(train.tokens_per_step) * (1 - data.needle_share);
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto& [share, tokens] = parts[i];
      if (tokens == 0 || share * read <= kMostTimes * double(tokens)) continue;
      sentences.push_back(fmt::format(
          "{}.tokens: {}, so the {} tokens of {} are read {:.1f} times; above {:.0f} times "
          "repeated text serves less than new: pack more, or train on fewer tokens",
          section_of(stage), train.tokens, tokens, weighted ? data.shards[i] : "data.shards",
          share * read / double(tokens), kMostTimes));
    }
  }
  return sentences;
}

std::vector<std::string> check_ahead(const Recipe& recipe, Missing missing,
                                     std::span<const Stage> stages) {
  const Progress phase("checking what the recipe names");
  if (recipe.teacher.empty()) {
    throw_error("teacher: names no model; give the Hugging Face directory of a Transformer");
  }
  const ContextSettings settings = context_settings(recipe);
  const ModelConfig teacher = by_key("teacher", [&] { return read_model_config(recipe.teacher); });
  // Refuses what cannot be converted.
  const ModelConfig student = by_key("teacher", [&] {
    return student_config(teacher, with_mixers(teacher, MixerType::kLightning).mixer_types,
                          recipe.transfer.learned_decay);
  });
  num_layers_to_keep(recipe.select, teacher);
  check_context_ranks(recipe.finetune.context_ranks, student);
  if (recipe.distill.teacher_products == TeacherProducts::kFp8) check_fp8_sizes(teacher);
  const std::vector<Lengths> lengths =
      needle_lengths(recipe, settings.row_length, settings.training_length(teacher));
  std::vector<std::string> unchecked;
  const auto note = [&](const std::string& sentence) {
    if (missing == Missing::kRefused) throw Error(sentence);
    unchecked.push_back(sentence);
  };
  if (recipe.data.shards.empty()) {
    note("data.shards is empty; name token shards made by `halo data pack`");
  } else {
    check_recipe(recipe.data);
  }
  if (recipe.eval.held_out.empty()) {
    note("eval.held_out names no token shard; make one with `halo data pack`");
  }
  if (!find_teacher_files(recipe.teacher, missing, unchecked)) return unchecked;
  const StageInputs inputs(settings);
  check_shortest(recipe, inputs.needles(), lengths, stages);
  const bool has_training = !recipe.data.shards.empty() &&
                            find_shards("data.shards", recipe.data.shards, missing, unchecked) &&
                            find_shards("data.haystack", recipe.data.haystack, missing, unchecked);
  const bool has_held_out =
      !recipe.eval.held_out.empty() &&
      find_shards("eval.held_out", {recipe.eval.held_out}, missing, unchecked);
  if (has_training) {
    for (const std::string& sentence : repeated_text(recipe, stages)) warn(sentence);
  }
  if (has_held_out) {
    by_key("eval.held_out", [&] { inputs.held_out(); });
    for (const Lengths& about : lengths) {
      check_needle_lengths(about.key, inputs.needles(), inputs.held_out(), about.lengths,
                           about.pool);
    }
    check_report(recipe, inputs, lengths.back().lengths);
  }
  for (const Stage& stage : stages) {
    if (stage.check && has_training && has_held_out && is_wanted(stage, recipe)) {
      stage.check(recipe, inputs);
    }
  }
  return unchecked;
}

}  // namespace halo
