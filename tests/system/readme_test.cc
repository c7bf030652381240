// What README shows works: every command is there with its options, and runs on a small world that
// is laid out as README's own: demo/, runs/demo, a text, a model, so that the words are README's.
#include <gtest/gtest.h>
#include <zstd.h>

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/formats/safetensors.h"
#include "halo/model/decoder.h"
#include "tests/places.h"
#include "tests/system/shown_commands.h"

namespace halo::system_test {
namespace {

fs::path source(const std::string& name) {
  return test::source_dir() / name;
}

// Commands that do not run here: how they begin, and why.
const std::vector<std::pair<std::string, std::string>> kNotRun = {
    {"bench train --stage align --config", "needs a GPU"},
    {"serve", "it does not end; serve_test.cc runs it"},
    {"bench kernels", "the shapes of a 2B model: a minute on a CPU"},
    {"import model.gguf", "import_test.cc runs it on files that it writes"},
    {"sweep", "24 students; sweeps_test.cc runs a small one"},
};

// Commands whose sizes are for real models: how they begin, what stands behind them here.
const std::vector<std::pair<std::string, Words>> kSmaller = {
    {"convert my-model.toml", {"--set", "align.tokens=16384",
                               "--set", "align_attention.tokens=8192",
                               "--set", "distill.tokens=16384",
                               "--set", "align.warmup_steps=0",
                               "--set", "align_attention.warmup_steps=0",
                               "--set", "distill.warmup_steps=0",
                               "--set", "select.rule=kl",  // a random teacher finds no needle
                               "--set", "select.bootstrap=10",
                               "--set", "scale.lengths=[512]",
                               "--set", "eval.lengths=[256]",
                               "--set", "scale.haystacks=1",
                               "--set", "scale.documents=1",
                               "--set", "eval.haystacks=1",
                               "--set", "eval.held_out_tokens=2048",
                               "--set", "eval.position_documents=1",
                               "--set", "gates.align_explained_variance=-10",
                               "--set", "gates.select_ratio=10",
                               "--set", "gates.distill_kl=10",
                               "--set", "gates.scale_needle=0"}},
    {"bench train --teacher", {"--sequence-length", "64", "--rows", "2", "--steps", "2"}},
    {"generate", {"--max-tokens", "8"}},
    {"chat", {"--max-tokens", "8"}},
    {"data synthesize", {"--length", "64", "--batch", "8"}},
};

bool begins_with(const ShownCommand& command, const std::string& start) {
  return fmt::format("{}", fmt::join(command.words, " ")).starts_with(start);
}

void write_zst(const fs::path& path, const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 1));
  write_file(path, out);
}

constexpr const char* kPretrain = R"(
lengths = [64, 128]
shares = [0.5, 0.5]
[tokenizer]
vocab_size = 300
[model]
num_layers = 1
hidden_size = 16
intermediate_size = 16
num_heads = 1
num_kv_heads = 1
head_dim = 16
[data]
needle_share = 0.0
[train]
tokens = 2048
sequence_length = 128
tokens_per_step = 512
warmup_steps = 1
)";

void make_texts(const fs::path& place) {
  const std::string text = read_file(World::get().path("train.jsonl"));
  write_file(place / "train.jsonl", text);
  write_file(place / "held-out.jsonl", read_file(World::get().path("held-out.jsonl")));
  write_zst(place / "train.jsonl.zst", text);
  write_zst(place / "text.jsonl.zst", text);
  write_file(place / "in.txt", "It was");
  fs::create_directories(place / "eval");
  write_file(
      place / "eval/hellaswag.jsonl",
      "{\"id\": \"a\", \"context\": \"It\", \"choices\": [\"was\", \"is\"], \"label\": 0}\n");
  write_file(place / "eval/lambada.jsonl", "{\"id\": \"a\", \"text\": \"It was so\"}\n");
  write_file(place / "prompts.jsonl", "{\"prompt\": \"It was\", \"n\": 2}\n{\"ids\": [1, 2]}\n");
  write_file(place / "texts.jsonl", "{\"text\": \"It was\"}\n");
  write_file(place / "chats.jsonl",
             "{\"messages\": [{\"role\": \"user\", \"content\": \"It was\"}]}\n");
  std::string table = "layer,squad,hellaswag\n";
  for (int layer = 0; layer < 28; ++layer) table += fmt::format("{},0.{},0.5\n", layer, 10 + layer);
  write_file(place / "sweep.csv", table);
}

// A folder in which README's words mean something.
fs::path make_place() {
  const World& world = World::get();
  const fs::path place = world.folder("readme");
  for (const char* folder : {"demo/data", "configs/recipes", "runs"}) {
    fs::create_directories(place / folder);
  }
  fs::copy(world.teacher(), place / "demo/teacher");
  fs::copy(world.recipe(), place / "demo/demo.toml");
  fs::copy(world.recipe(), place / "R.toml");
  fs::copy(world.train_shards() / "shard-00000.halotok", place / "demo/data/train.halotok");
  for (const char* run : {"runs/demo", "runs/demo-quick"}) {
    fs::copy(world.reference(), place / run, fs::copy_options::recursive);
  }
  fs::copy(world.teacher(), place / "T");
  fs::copy(world.reference() / "transfer/step-0", place / "S", fs::copy_options::recursive);
  fs::copy(world.reference() / "model", place / "MODEL");
  write_file(place / "MODEL/chat_template.jinja",
             "{% for m in messages %}{{ m.content }}{% endfor %}");
  fs::create_directory_symlink(source("configs/model"), place / "configs/model");
  for (const auto& recipe : fs::directory_iterator(source("configs/recipes"))) {
    fs::copy(recipe.path(), place / "configs/recipes");
  }
  fs::remove(place / "configs/recipes/demo-teacher.toml");
  write_file(place / "configs/recipes/demo-teacher.toml", kPretrain);
  make_texts(place);
  const at::Tensor ids = at::arange(24, at::kLong).view({2, 12});
  write_safetensors(place / "in.safetensors", std::vector{to_view("input_ids", ids)});
  return place;
}

void run_shown(const ShownCommand& command, const fs::path& place) {
  Process process{command.words};
  process.directory = place;
  process.standard_input = place / "in.txt";
  std::ranges::replace(process.arguments, std::string("1000000"), std::string("3000"));
  for (const auto& [start, more] : kSmaller) {
    if (begins_with(command, start)) {
      process.arguments.insert(process.arguments.end(), more.begin(), more.end());
    }
  }
  const Outcome outcome = run_halo(process);
  EXPECT_EQ(outcome.code, 0) << "README.md " << command.text() << "\n" << outcome.err;
}

// A command that stands in the text by its name alone ("`halo init` writes ...") is not run.
bool is_mention(const ShownCommand& command) {
  return !command.in_block && std::ranges::none_of(command.words, [](const std::string& word) {
    return word.find_first_of("./- ") != std::string::npos;
  }) && command.words.front() != "doctor";
}

TEST(Readme, ShowsCommandsAndOptionsThatThereAre) {
  for (const char* page : {"README.md", "docs/guides/convert-your-model.md",
                           "docs/guides/extend.md", "docs/performance.md"}) {
    const std::vector<ShownCommand> commands = shown_commands(source(page));
    for (const ShownCommand& command : commands) {
      EXPECT_EQ(wrong_usage(command), "") << page << " " << command.text();
    }
  }
  EXPECT_GT(shown_commands(source("README.md")).size(), 35u);
  // The check itself: a command and an option that are not there.
  EXPECT_NE(wrong_usage({1, false, {"convrt", "x"}}), "");
  EXPECT_NE(wrong_usage({1, false, {"plan", "x", "--memry", "3"}}), "");
  EXPECT_NE(wrong_usage({1, false, {"data", "pack", "x", "--se", "3"}}), "");
}

TEST(Readme, CommandsOfItsTablesRun) {
  for (const ShownCommand& command : shown_commands(source("README.md"))) {
    const bool not_run = std::ranges::any_of(
        kNotRun, [&](const auto& entry) { return begins_with(command, entry.first); });
    if (command.in_block || is_mention(command) || not_run) continue;
    const fs::path place = make_place();
    // `init` reads what `data pack` wrote before.
    if (command.words.front() == "init") {
      fs::create_directories(place / "shards");
      fs::copy(World::get().train_shards(), place / "shards/train");
      fs::copy(World::get().held_out(), place / "shards/held-out");
    }
    run_shown(command, place);
    fs::remove_all(place);
  }
}

TEST(Readme, BlocksRunOneLineAfterAnother) {
  const fs::path place = make_place();
  int count = 0;
  for (const ShownCommand& command : shown_commands(source("README.md"))) {
    if (!command.in_block) continue;
    ++count;
    run_shown(command, place);
  }
  EXPECT_GE(count, 6);
  EXPECT_TRUE(fs::exists(place / "runs/my-model/report.html"));
}

TEST(Readme, ReasonsForNotRunningAreOfCommandsThatItShows) {
  const std::vector<ShownCommand> commands = shown_commands(source("README.md"));
  std::vector<std::string> starts;
  for (const auto& [start, reason] : kNotRun) starts.push_back(start);
  for (const auto& [start, more] : kSmaller) starts.push_back(start);
  for (const std::string& start : starts) {
    EXPECT_TRUE(std::ranges::any_of(commands, [&](const ShownCommand& command) {
      return begins_with(command, start);
    })) << start;
  }
}

}  // namespace
}  // namespace halo::system_test
