#include "tests/system/world.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <sstream>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/random.h"
#include "halo/data/pack.h"
#include "halo/formats/safetensors.h"
#include "halo/model/decoder.h"
#include "halo/model/model_testing.h"
#include "halo/pipeline/stage.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo::system_test {
namespace {

constexpr int64_t kVocabulary = 360;

const Words kNouns = {"river", "teacher", "garden", "engine", "letter", "window", "castle", "dog"};
const Words kVerbs = {"follows", "paints", "finds", "remembers", "carries", "hears"};
const Words kAdjectives = {"old", "quiet", "green", "broken", "secret", "tall"};

// One sentence of a small grammar: S -> NP V NP [where NP V NP], NP -> the [adjective] noun.
std::string sentence(const Random& random, uint64_t& n) {
  const auto pick = [&](const Words& words) {
    return words[static_cast<size_t>(random.below(n++, static_cast<int64_t>(words.size())))];
  };
  const auto phrase = [&] {
    return random.below(n++, 2) ? "the " + pick(kAdjectives) + " " + pick(kNouns)
                                : "the " + pick(kNouns);
  };
  std::string text = phrase() + " " + pick(kVerbs) + " " + phrase();
  if (random.below(n++, 3) == 0) text += " where " + phrase() + " " + pick(kVerbs) + " " + phrase();
  text[0] = 'T';
  return text + ". ";
}

std::string document(uint64_t index) {
  const Random random(5, "grammar", index);
  uint64_t n = 0;
  std::string text;
  while (text.size() < 8000) text += sentence(random, n);
  return text;
}

void write_documents(const fs::path& path, uint64_t first, uint64_t count) {
  std::string lines;
  for (uint64_t i = first; i < first + count; ++i) {
    lines += json::serialize(json::object{{"text", document(i)}}) + "\n";
  }
  write_file(path, lines);
}

ModelConfig teacher_config(int64_t end_token) {
  ModelConfig c;
  c.vocab_size = kVocabulary;
  c.hidden_size = 64;
  c.intermediate_size = 96;
  c.num_layers = 4;
  c.num_heads = c.lightning_heads = 2;
  c.num_kv_heads = c.lightning_kv_heads = 1;
  c.head_dim = c.lightning_head_dim = 32;
  c.rope_theta = 1e4;
  c.tie_word_embeddings = true;
  c.max_position_embeddings = 256;
  c.eos_token_ids = {end_token};
  c.mixer_types.assign(4, MixerType::kAttention);
  return c;
}

// Rule kl: the teacher's weights are random, so it finds no needles to choose by.
constexpr const char* kRecipe = R"(
teacher = "{0}/teacher"
[run]
seed = 3
threads = 1
[data]
shards = ["{0}/train"]
needle_share = 0.25
[align]
tokens = 6144
sequence_length = 256
tokens_per_step = 1024
micro_batch_rows = 2
learning_rate = 1e-2
warmup_steps = 2
checkpoint_every = 2
[align_attention]
tokens = 4096
sequence_length = 256
tokens_per_step = 1024
micro_batch_rows = 4
learning_rate = 3e-3
warmup_steps = 2
checkpoint_every = 2
[select]
rule = "kl"
needle_haystacks = 2
needle_questions = 2
held_out_rows = 4
bootstrap = 20
[distill]
tokens = 6144
sequence_length = 256
tokens_per_step = 1024
micro_batch_rows = 4
learning_rate = 1e-3
warmup_steps = 2
checkpoint_every = 2
[finetune]
tokens = 4096
sequence_length = 512
tokens_per_step = 1024
micro_batch_rows = 1
learning_rate = 1e-3
warmup_steps = 2
checkpoint_every = 2
[on_policy]
tokens = 4096
sequence_length = 128
tokens_per_step = 1024
micro_batch_rows = 4
learning_rate = 1e-3
warmup_steps = 2
checkpoint_every = 2
[scale]
candidates = [500, 1000]
lengths = [1024]
haystacks = 1
questions = 2
documents = 2
[eval]
held_out = "{0}/held-out"
lengths = [256]
held_out_tokens = 2048
haystacks = 1
questions = 2
position_documents = 1
[gates]
align_explained_variance = -10
select_ratio = 10
distill_kl = 10
finetune_loss_decrease = -10
on_policy_kl_decrease = -10
scale_needle = 0
)";

// Takes out what depends on the clock.
void drop_times(json::value& value) {
  if (value.is_array()) {
    for (json::value& item : value.as_array()) drop_times(item);
  }
  if (!value.is_object()) return;
  for (const char* key : {"seconds", "tokens_per_second", "data_wait", "matrix_gflops"}) {
    value.as_object().erase(key);
  }
  for (auto& [key, item] : value.as_object()) drop_times(item);
}

std::string without_times(const std::string& line) {
  json::value value = parse_json(line, "record");
  drop_times(value);
  return json::serialize(value);
}

}  // namespace

const Words kStages = [] {
  Words names;
  for (const Stage& stage : pipeline_stages()) names.push_back(stage.name);
  return names;
}();

World::World() {
  make_text();
  make_teacher();
  make_recipe();
}

const World& World::get() {
  static const World world;
  return world;
}

fs::path World::folder(const std::string& name) const {
  std::string pattern = path(name + "-XXXXXX").string();
  return mkdtemp(pattern.data());
}

void World::make_text() const {
  write_documents(path("train.jsonl"), 0, 24);
  write_documents(path("held-out.jsonl"), 100, 12);
  Words texts = {"The secret number of the bell is 12345. What is the secret number of the bell? "};
  for (uint64_t i = 0; i < 8; ++i) texts.push_back(texts.front() + document(i));
  fs::create_directories(teacher());
  const fs::path tokenizer = teacher() / "tokenizer.json";
  write_file(tokenizer, train_bpe(texts, kVocabulary, {"<|endoftext|>"}));
  pack({path("train.jsonl")}, tokenizer, train_shards(), {});
  pack({path("held-out.jsonl")}, tokenizer, held_out(), {});
}

void World::make_teacher() const {
  const Tokenizer tokenizer(teacher() / "tokenizer.json");
  const ModelConfig config = teacher_config(tokenizer.document_end());
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen, at::kFloat,
                       at::kCPU);
  test::fill_random(store, 7);
  save_model(teacher(), config, store, DType::kF32);
}

void World::make_recipe() const {
  write_file(recipe(), fmt::format(fmt::runtime(kRecipe), root_.path().string()));
}

const fs::path& World::reference() const {
  static const fs::path run = [this] {
    const fs::path folder = path("reference");
    const Outcome outcome = run_halo(convert(folder, false));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return folder;
  }();
  return run;
}

Process convert(const fs::path& run, bool resume, const std::string& crash_at) {
  Words arguments = {"convert", World::get().recipe().string(), "--run", run.string()};
  if (resume) arguments.push_back("--resume");
  return {arguments, crash_at};
}

std::map<std::string, std::string> record(const fs::path& run) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    const std::string name = fs::relative(entry.path(), run).string();
    const std::string file = entry.path().filename().string();
    if (file == "metrics.jsonl") {
      std::istringstream lines(read_file(entry.path()));
      for (std::string line; std::getline(lines, line);) out[name] += without_times(line) + "\n";
    } else if (file == "result.json" || file == "selection.json" || file == "scale.json" ||
               file == "summary.json") {
      out[name] = without_times(read_file(entry.path()));
    } else if (name.starts_with("model/")) {
      out[name] = read_file(entry.path());
    }
  }
  return out;
}

void expect_same_record(const fs::path& run, const fs::path& reference) {
  const auto got = record(run), expected = record(reference);
  ASSERT_GT(expected.size(), 15u);
  for (const auto& [name, content] : expected) {
    ASSERT_TRUE(got.count(name)) << name << " is missing";
    // Weights are long: say that they differ, not how.
    EXPECT_TRUE(got.at(name) == content) << name << " differs:\n"
                                         << (content.size() < 4000 ? got.at(name) + content : "");
  }
  EXPECT_EQ(got.size(), expected.size());
}

std::string running_stage(const fs::path& run) {
  const std::string text = fs::exists(run / "STATUS") ? read_file(run / "STATUS") : "";
  const std::string running = "running ";
  if (!text.starts_with(running)) return text;
  return text.substr(running.size(), text.find('\n') - running.size());
}

void expect_error(const Outcome& outcome, int code, const Words& parts) {
  EXPECT_EQ(outcome.code, code) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  std::istringstream lines(outcome.err);
  int errors = 0;
  std::string error;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("halo: ") || line.starts_with("halo: warning")) continue;
    ++errors;
    error = line;
  }
  EXPECT_EQ(errors, 1) << outcome.err;
  EXPECT_TRUE(outcome.err.ends_with(error + "\n")) << outcome.err;
  for (const std::string& part : parts) {
    EXPECT_NE(error.find(part), std::string::npos) << "no '" << part << "' in: " << outcome.err;
  }
}

fs::path sharded_teacher(const fs::path& to) {
  fs::copy(World::get().teacher(), to);
  const SafetensorsFile whole(World::get().teacher() / "model.safetensors");
  std::vector<TensorView> parts[2];
  json::object map;
  for (const TensorView& tensor : whole.tensors()) {
    const int i = tensor.name.find("mlp") != std::string::npos;
    parts[i].push_back(tensor);
    map[tensor.name] = fmt::format("model-{}.safetensors", i);
  }
  fs::remove(to / "model.safetensors");
  for (int i : {0, 1}) write_safetensors(to / fmt::format("model-{}.safetensors", i), parts[i]);
  write_json(to / "model.safetensors.index.json", json::object{{"weight_map", map}});
  return to;
}

}  // namespace halo::system_test
