// What goes wrong from outside: one clear sentence, the right exit code, and nothing that was there
// before is lost.
#include <gtest/gtest.h>
#include <signal.h>

#include "halo/base/files.h"
#include "halo/base/json.h"
#include "halo/data/pack.h"
#include "halo/formats/safetensors.h"
#include "halo/tokenizer/tokenizer.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

Outcome convert_with(const fs::path& run, const Words& set, bool resume = false) {
  Process process = convert(run, resume);
  for (const std::string& s : set) process.arguments.insert(process.arguments.end(), {"--set", s});
  return run_halo(process);
}

fs::path fresh() {
  return World::get().folder("errors") / "run";
}

// A copy of the teacher whose config.json has one key changed.
fs::path teacher_with(const std::string& key, const json::value& value) {
  const fs::path copy = World::get().folder("teacher") / "copy";
  fs::copy(World::get().teacher(), copy);
  json::object config = read_json(copy / "config.json").as_object();
  config[key] = value;
  write_json(copy / "config.json", config);
  return copy;
}

std::string shard_of(const fs::path& folder) {
  return (folder / "shard-00000.halotok").string();
}

void truncate(const fs::path& path, uint64_t bytes) {
  fs::resize_file(path, fs::file_size(path) - bytes);
}

TEST(Errors, Usage) {
  for (const Words& words : {Words{}, Words{"convrt"}, Words{"convert"}, Words{"align"},
                             Words{"convert", World::get().recipe().string(), "--runn", "x"}}) {
    const Outcome outcome = run_halo(words);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_NE(outcome.err, "");
  }
}

TEST(Errors, UnknownKeyNamesTheNearest) {
  expect_error(convert_with(fresh(), {"align.tokns=5"}), 1, {"tokns", "did you mean 'tokens'"});
  const fs::path recipe = World::get().folder("recipe") / "r.toml";
  write_file(recipe, "[distill]\nlearning_rat = 1\n");
  expect_error(run_halo({"convert", recipe.string(), "--run", fresh().string()}), 1,
               {"r.toml:2", "learning_rat", "did you mean 'learning_rate'"});
}

TEST(Errors, FolderThatCannotBeMade) {
  const fs::path file = World::get().folder("file") / "plain";
  write_file(file, "kept");
  expect_error(run_halo(convert(file / "run", false)), 1, {"plain", "ot a directory"});
  expect_error(run_halo(convert("/proc/halo-run", false)), 1, {"/proc/halo-run"});
  EXPECT_EQ(read_file(file), "kept");
}

TEST(Errors, FolderThatIsNotEmpty) {
  const fs::path run = fresh();
  fs::create_directories(run);
  write_file(run / "notes.txt", "kept");
  expect_error(run_halo(convert(run, false)), 1, {"not empty", "--resume"});
  EXPECT_EQ(read_file(run / "notes.txt"), "kept");
  EXPECT_EQ(std::distance(fs::directory_iterator(run), {}), 1);
}

TEST(Errors, DamagedAndForeignShards) {
  const fs::path shards = World::get().folder("shards");
  const std::string shard = shard_of(shards);
  fs::copy(shard_of(World::get().train_shards()), shard);
  truncate(shard, 100);
  expect_error(convert_with(fresh(), {"data.shards=[\"" + shard + "\"]"}), 1, {shard, "byte"});

  const fs::path tokenizer = shards / "tokenizer.json", other = shards / "other";
  write_file(tokenizer, train_bpe({"quite another text about numbers"}, 262, {"<|endoftext|>"}));
  pack({World::get().path("train.jsonl")}, tokenizer, other, {});
  expect_error(convert_with(fresh(), {"data.shards=[\"" + other.string() + "\"]"}), 1,
               {shard_of(other), "tokenizer"});
  expect_error(convert_with(fresh(), {"eval.held_out=\"" + other.string() + "\""}), 1,
               {shard_of(other), "tokenizer"});
}

// Found before the first stage trains, not when its gate is computed.
TEST(Errors, MissingHeldOutText) {
  for (const std::string path : {"", "/nowhere/x.halotok"}) {
    const fs::path run = fresh();
    expect_error(convert_with(run, {"eval.held_out=\"" + path + "\""}), 1,
                 {"token shard", "halo data pack"});
    EXPECT_FALSE(fs::exists(run));
  }
}

// What a late stage could not do is refused before the first one trains.
TEST(Errors, WhatCannotBeReachedIsRefusedAtOnce) {
  const std::vector<std::pair<std::string, Words>> cases = {
      {"select.keep=5", {"select.keep = 5", "4 layers"}},
      {"select.keep=-1", {"select.keep", "-1"}},
      {"run.threads=1000000", {"run.threads", "1024", "1000000"}},
      {"select.rule=\"jont\"", {"jont", "joint"}},
      {"select.needle_length=1000000", {"1000000", "held-out"}},
      {"scale.lengths=[1000000]", {"1000000", "held-out"}},
      {"scale.lengths=[512]", {"scale.lengths", "training length"}},
      {"scale.lengths=[0]", {"scale.lengths"}},
      {"scale.candidates=[500.5]", {"scale.candidates", "500.5"}},
      {"scale.candidates=[]", {"scale.candidates"}},
      {"eval.lengths=[256, 1000000]", {"1000000", "held-out"}},
      {"eval.lengths=[0]", {"eval.lengths"}},
      {"eval.lengths=[30]", {"eval.lengths: 30 tokens are too few"}},
      {"select.needle_length=25", {"select.needle_length: 25 tokens are too few"}},
      {"eval.questions=200", {"eval.questions: 200, but there are"}},
      {"scale.questions=200", {"scale.questions: 200, but there are"}},
      {"eval.lengths=[256, 256]", {"eval.lengths: 256 is given twice"}},
      {"data.shards=[\"/nowhere\"]", {"data.shards", "/nowhere", "halo data pack"}},
      {"data.haystack=[\"/nowhere\"]", {"data.haystack", "/nowhere"}},
      {"data.document_end=\"<|no|>\"", {"data.document_end", "<|no|>"}},
      {"teacher=\"\"", {"teacher: names no model"}},
      {"gates.distill_kl=nan", {"gates.distill_kl"}},
      {"finetune.sequence_length=65536", {"finetune"}},
      {"on_policy.prompt_tokens=128", {"on_policy.prompt_tokens: 128 leave no room to write"}},
      {"on_policy.divergence=\"revers\"", {"revers", "reverse"}},
      {"transfer.init=\"mach\"", {"mach", "match"}},
      {"distill.clip_mode=\"globl\"", {"globl", "global"}},
      {"run.kernels=\"fst\"", {"fst", "fast"}},
      {"data.packing=\"ct\"", {"ct", "cut"}}};
  for (const auto& [set, parts] : cases) {
    const fs::path run = fresh();
    expect_error(convert_with(run, {set}), 1, parts);
    EXPECT_FALSE(fs::exists(run)) << set;
    // plan goes on without what is not there.
    if (set.find("/nowhere") != std::string::npos) continue;
    expect_error(run_halo({"plan", World::get().recipe().string(), "--gflops", "1", "--memory",
                           "100", "--set", set}),
                 1, parts);
  }
  // Documents of some 3,000 tokens fill no rows of 8,192: stage 3 would teach nothing about length.
  const fs::path run = fresh();
  expect_error(convert_with(run, {"finetune.sequence_length=8192", "finetune.tokens=32768",
                                  "finetune.tokens_per_step=8192", "scale.lengths=[9000]"}),
               1, {"finetune", "more than half of 8192 tokens", "long_context"});
  EXPECT_FALSE(fs::exists(run));
}

// A needle document that does not fit a stage's rows.
TEST(Errors, RowsTooShortForNeedles) {
  const fs::path run = fresh();
  expect_error(convert_with(run, {"distill.sequence_length=32"}), 1,
               {"distill.sequence_length: 32, but a needle document (data.needle_share) takes"});
  EXPECT_FALSE(fs::exists(run));
}

// A weight shard of a sharded teacher that is cut short, or gone.
TEST(Errors, DamagedWeightShards) {
  const fs::path teacher = sharded_teacher(World::get().folder("sharded") / "copy");
  const Words inspect = {"inspect", teacher.string(), "--json"};
  ASSERT_EQ(run_halo(inspect).code, 0);
  const Words set = {"teacher=\"" + teacher.string() + "\""};
  truncate(teacher / "model-1.safetensors", 500);
  expect_error(convert_with(fresh(), set), 1, {"model-1.safetensors", "byte"});
  fs::remove(teacher / "model-1.safetensors");
  expect_error(convert_with(fresh(), set), 1, {"model-1.safetensors"});
}

TEST(Errors, UnsupportedTeachers) {
  const auto refuse = [](const fs::path& teacher, const Words& parts) {
    expect_error(convert_with(fresh(), {"teacher=\"" + teacher.string() + "\""}), 1, parts);
  };
  refuse(teacher_with("use_sliding_window", true), {"config.json", "use_sliding_window"});
  refuse(teacher_with("rope_scaling", {{"rope_type", "lama3"}, {"factor", 2.0}}),
         {"config.json", "lama3", "llama3"});
  refuse(teacher_with("num_experts", 8), {"config.json", "num_experts"});
  refuse("/nowhere", {"/nowhere"});

  const fs::path foreign = teacher_with("bos_token_id", nullptr);
  std::string words;
  for (int i = 0; i < 2 * 26 * 26; ++i) {
    words += fmt::format(" {}{}ing", static_cast<char>('a' + i % 26),
                         static_cast<char>('a' + i / 26 % 26));
  }
  write_file(foreign / "tokenizer.json", train_bpe({words}, 400, {"<|endoftext|>"}));
  ASSERT_GT(Tokenizer(foreign / "tokenizer.json").vocab_size(), 360);
  refuse(foreign, {"tokenizer.json", "vocabulary of 360"});
  fs::remove(foreign / "tokenizer.json");
  refuse(foreign, {"tokenizer.json"});

  const fs::path cut = teacher_with("bos_token_id", nullptr);
  truncate(cut / "model.safetensors", 1000);
  refuse(cut, {"model.safetensors"});

  const fs::path incomplete = teacher_with("bos_token_id", nullptr);
  const SafetensorsFile whole(World::get().teacher() / "model.safetensors");
  std::vector<TensorView> tensors(whole.tensors().begin(), whole.tensors().end());
  const std::string missing = "model.layers.1.self_attn.q_norm.weight";
  std::erase_if(tensors, [&](const TensorView& tensor) { return tensor.name == missing; });
  write_safetensors(incomplete / "model.safetensors", tensors);
  refuse(incomplete, {missing, incomplete.string()});
}

// A run that is under way: killed in stage align after its checkpoint step-2.
class UnderWay : public testing::Test {
 protected:
  UnderWay() : run_(fresh()) {
    EXPECT_EQ(run_halo(convert(run_, false, "train.mid_step:4")).signal, SIGKILL);
    EXPECT_TRUE(fs::exists(run_ / "align" / "step-2"));
  }
  void expect_goes_on() const {
    const Outcome outcome = run_halo(convert(run_, true));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_same_record(run_, World::get().reference());
  }
  fs::path run_;
};

TEST_F(UnderWay, AnotherRecipeIsRefused) {
  expect_error(
      convert_with(run_, {"align.learning_rate=1e-4"}, true), 1,
      {"align was made with align.learning_rate = 0.01, which is 0.0001 now", "--from align"});
  expect_error(convert_with(run_, {"run.seed=4"}, true), 1,
               {"transfer was made with run.seed = 3, which is 4 now"});
  expect_goes_on();
}

TEST_F(UnderWay, ChangedDataIsRefused) {
  const std::string shard = shard_of(World::get().train_shards());
  const std::string before = read_file(shard);
  const fs::path longer = World::get().folder("longer") / "shards";
  pack({World::get().path("train.jsonl"), World::get().path("held-out.jsonl")},
       World::get().teacher() / "tokenizer.json", longer, {});
  write_file(shard, read_file(shard_of(longer)));
  const Outcome outcome = run_halo(convert(run_, true));
  write_file(shard, before);
  expect_error(outcome, 1, {"transfer was made with other data.shards"});
  expect_goes_on();
}

TEST_F(UnderWay, AFullDiskLosesNothing) {
  Process process = convert(run_, true);
  process.max_file_bytes = 100'000;  // enough for the tokenizer, not for weights
  expect_error(run_halo(process), 1, {"step-4.tmp", "File too large"});
  EXPECT_TRUE(fs::exists(run_ / "align" / "step-2" / "state" / "manifest.json"));
  EXPECT_FALSE(fs::exists(run_ / "align" / "step-4"));
  expect_goes_on();
}

TEST_F(UnderWay, ADamagedCheckpointIsPassedOver) {
  truncate(run_ / "align" / "step-2" / "state" / "moment1.safetensors", 10);
  const Outcome outcome = run_halo(convert(run_, true));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("halo: warning: align: checkpoint passed over"), std::string::npos);
  EXPECT_TRUE(fs::exists(run_ / "align" / "step-2.damaged") ||
              fs::exists(run_ / "align" / "step-6"));
  expect_same_record(run_, World::get().reference());
}

// Weights that explode or die: the message names a checkpoint from which a lower rate goes on.
TEST(Errors, DivergingLearningRate) {
  const Words settings = {"distill.tokens=10240", "distill.tokens_per_step=256",
                          "distill.micro_batch_rows=1", "distill.checkpoint_every=20"};
  for (const std::string rate : {"1e4", "1e20"}) {
    const fs::path out = World::get().folder("diverged") / "out";
    Words words = {"distill",
                   "--recipe",
                   World::get().recipe().string(),
                   "--out",
                   out.string(),
                   "--student",
                   (World::get().reference() / "select" / "step-0").string()};
    for (const std::string& s : settings) words.insert(words.end(), {"--set", s});
    Words wrong = words;
    wrong.insert(wrong.end(), {"--set", "distill.learning_rate=" + rate});
    expect_error(run_halo(wrong), 1, {"distill", "start from", "step-0", "lower learning_rate"});
    EXPECT_FALSE(fs::exists(out / "step-20"));
    const Outcome lower = run_halo(words);
    EXPECT_EQ(lower.code, 0) << lower.err;
  }
}

TEST(Errors, AFinishedStageIsNotOverwritten) {
  const fs::path done = World::get().reference() / "transfer";
  const std::string before = read_file(done / "result.json");
  expect_error(
      run_halo({"transfer", "--recipe", World::get().recipe().string(), "--out", done.string()}), 1,
      {"finished stage", "--out"});
  EXPECT_EQ(read_file(done / "result.json"), before);
}

}  // namespace
}  // namespace halo::system_test
