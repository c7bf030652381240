// Command lines drawn from what the commands declare, with values that nobody means: whatever is
// asked, halo answers with a documented exit code and a sentence for its user.
//   HALO_COMMAND_LINES=1000 build/tests/system_test --gtest_filter='RandomCommands.*'
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <regex>
#include <sstream>
#include <thread>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/random.h"
#include "halo/formats/safetensors.h"
#include "tests/asked.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// What does not end by itself is told to, and then has to.
constexpr milliseconds kPatience{1200}, kLimit{5000};

// Names of the options of each command ("data pack"), from the manual page.
std::map<std::string, Words> read_options() {
  std::istringstream page(run_halo({"man"}).out);
  std::map<std::string, Words> options;
  std::string command;
  for (std::string line; std::getline(page, line);) {
    std::string plain;
    for (const char c : line) {
      if (c != '\\') plain += c;
    }
    if (plain.starts_with(".SS halo ")) {
      command = plain.substr(9);
      options[command];
    } else if (!command.empty() && plain.starts_with("fB--")) {
      options[command].push_back(plain.substr(2, plain.find("fR") - 2));
    }
  }
  return options;
}

// Keys of a recipe, "align.tokens".
Words read_keys() {
  std::istringstream page(run_halo({"plan", "--keys"}).out);
  Words keys;
  for (std::string line; std::getline(page, line);) {
    if (const size_t end = line.find("  ("); end != std::string::npos) {
      keys.push_back(line.substr(0, end));
    }
  }
  return keys;
}

const Words kNumbers = {"0",
                        "-1",
                        "1",
                        "2",
                        "3",
                        "7",
                        "0.5",
                        "-0.5",
                        "nan",
                        "inf",
                        "-inf",
                        "1e308",
                        "1e-308",
                        "9223372036854775807",
                        "9223372036854775808",
                        "-9223372036854775808",
                        "1000000",
                        "16777216",
                        "999999999999999999999999",
                        "[]",
                        "[1, 2]",
                        "[0]",
                        "[nan]",
                        "[64, 64]",
                        "[1000000]",
                        "1,2",
                        ""};
const Words kPaths = {"",
                      "/dev/full",
                      "/dev/null",
                      "/proc",
                      ".",
                      "..",
                      "/nowhere/file",
                      "teacher",
                      "recipe.toml",
                      "train",
                      "held-out",
                      "train.jsonl",
                      "texts.jsonl",
                      "ids.safetensors",
                      "eval",
                      "out",
                      "teacher/config.json",
                      "teacher/tokenizer.json",
                      "sweep.csv",
                      std::string(300, 'a'),
                      "\xff\xfe",
                      "held-out/shard-00000.halotok",
                      "teacher/model.safetensors"};
const Words kOthers = {"x",
                       "true",
                       "false",
                       "cpu",
                       "fast",
                       "reference",
                       "bfloat16",
                       "float32",
                       "auto",
                       "kl",
                       "even",
                       "random",
                       "recall",
                       "lsq",
                       "identity",
                       "concat",
                       "{}",
                       "%s%n",
                       "\n",
                       "--",
                       "-",
                       ",",
                       std::string(5000, '9'),
                       "lambada",
                       "0x10",
                       "[\"train\"]",
                       "[\"/nowhere\"]",
                       "[\"\"]",
                       "constant",
                       "per-layer"};

// Command lines that work, in a place that make_place() made.
const std::vector<Words> kWorking = {
    {"plan", "recipe.toml", "--gflops", "100", "--memory", "10"},
    {"convert", "recipe.toml", "--run", "out"},
    {"transfer", "--recipe", "recipe.toml", "--out", "out"},
    {"align", "--recipe", "recipe.toml", "--student", "student", "--out", "out"},
    {"select", "--recipe", "recipe.toml", "--student", "student", "--out", "out"},
    {"scale", "--recipe", "recipe.toml", "--student", "student", "--out", "out"},
    {"select", "--scores", "sweep.csv", "--keep", "2", "--recall", "squad", "--commonsense", "hs"},
    {"pretrain", "pretrain.toml", "--run", "out"},
    {"init", "teacher", "--data", "train", "held-out"},
    {"data", "pack", "train.jsonl", "--tokenizer", "teacher", "--out", "out"},
    {"data", "synthesize", "teacher", "--out", "out", "--tokens", "200", "--length", "32",
     "--batch", "2"},
    {"data", "inspect", "held-out", "--tokenizer", "teacher"},
    {"eval", "teacher", "--tasks", "lambada", "--data", "eval"},
    {"eval", "--recipe", "recipe.toml"},
    {"logits", "teacher", "--ids", "ids.safetensors", "--out", "out"},
    {"generate", "teacher", "It was", "--max-tokens", "4"},
    {"tokenize", "teacher", "--jsonl", "texts.jsonl"},
    {"import", "teacher", "--out", "out"},
    {"export", "teacher", "--out", "out"},
    {"inspect", "teacher"},
    {"inspect", "--diff", "teacher", "teacher"},
    {"report", "out"},
    {"bench", "train", "--teacher", "teacher", "--sequence-length", "16", "--rows", "1", "--steps",
     "1"},
    {"bench", "infer", "teacher", "--contexts", "16", "--batch", "1"},
    {"bench", "load", "teacher"},
    {"bench", "tokenize", "teacher", "texts.jsonl"},
    {"completion", "bash"},
    {"man"},
};

constexpr const char* kPretrain = R"(
text = ["texts.jsonl"]
lengths = [64]
shares = [1.0]
[tokenizer]
vocab_size = 260
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
tokens = 256
sequence_length = 64
tokens_per_step = 128
micro_batch_rows = 1
warmup_steps = 1
)";

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

// What the command lines name.
void make_place(const fs::path& place) {
  const World& world = World::get();
  fs::copy(world.teacher(), place / "teacher", fs::copy_options::recursive);
  fs::copy(world.reference() / "select" / "step-0", place / "student");
  fs::copy(world.train_shards(), place / "train", fs::copy_options::recursive);
  fs::copy(world.held_out(), place / "held-out", fs::copy_options::recursive);
  fs::copy(world.path("train.jsonl"), place / "train.jsonl");
  std::string recipe = read_file(world.recipe());
  replace_all(recipe, world.path("").string(), "");
  write_file(place / "recipe.toml", recipe);
  write_file(place / "pretrain.toml", kPretrain);
  write_file(place / "texts.jsonl", "{\"text\": \"It was so. The old dog finds a letter\"}\n");
  write_file(place / "sweep.csv", "layer,squad,hs\n0,0.1,0.5\n1,0.2,0.5\n2,0.3,0.4\n");
  fs::create_directories(place / "eval");
  write_file(place / "eval/lambada.jsonl", "{\"id\": \"a\", \"text\": \"It was so\"}\n");
  const at::Tensor ids = at::ones({1, 4}, at::kLong);
  const std::vector<int64_t> shape = {1, 4};
  const TensorView view{"input_ids", DType::kI64, shape,
                        std::as_bytes(std::span(ids.const_data_ptr<int64_t>(), 4))};
  write_safetensors(place / "ids.safetensors", std::span(&view, 1));
}

// Path -> hash of what command lines may read and not change.
std::map<std::string, std::string> inputs_of(const fs::path& place) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(place)) {
    if (entry.is_regular_file()) out[entry.path().string()] = hash_file(entry.path());
  }
  return out;
}

class Draws {
 public:
  explicit Draws(uint64_t line) : random_(14, "command line", line) {}
  int64_t below(int64_t n) { return random_.below(count_++, n); }
  const std::string& of(const Words& words) {
    return words[static_cast<size_t>(below(std::ssize(words)))];
  }

 private:
  Random random_;
  uint64_t count_ = 0;
};

bool is_number(const std::string& word) {
  return !word.empty() && word.find_first_not_of("0123456789.") == std::string::npos;
}

// A value to stand where `before` stood, mostly of its kind.
std::string draw_value(Draws& draws, const std::string& before) {
  const int64_t kind = draws.below(8);
  if (kind == 0) return draws.of(kOthers);
  const bool numbers = before.empty() ? kind < 5 : is_number(before) == (kind > 1);
  return draws.of(numbers ? kNumbers : kPaths);
}

// Gives the option a value, or another one.
void set_option(Draws& draws, const std::string& name, Words& words) {
  const auto found = std::ranges::find(words, name);
  if (found != words.end() && found + 1 != words.end()) {
    *(found + 1) = draw_value(draws, *(found + 1));
  } else if (found == words.end()) {
    words.push_back(name);
    if (draws.below(8) > 0) words.push_back(draw_value(draws, ""));
  }
}

Words draw_line(Draws& draws, const std::map<std::string, Words>& options, const Words& keys) {
  Words words = kWorking[static_cast<size_t>(draws.below(std::ssize(kWorking)))];
  std::string command = words[0];
  if (words.size() > 1 && options.contains(command + " " + words[1])) command += " " + words[1];
  const int64_t fixed = std::ranges::count(command, ' ') + 1;
  const Words& names = options.at(command);
  const bool has_recipe = std::ranges::count(names, "--set") > 0;
  for (int64_t changes = 1 + draws.below(2); changes > 0; --changes) {
    const int64_t kind = draws.below(10);
    const auto place = fixed + draws.below(std::max<int64_t>(1, std::ssize(words) - fixed));
    if (has_recipe && kind < 5) {
      words.insert(words.end(), {"--set", draws.of(keys) + "=" + draw_value(draws, "")});
    } else if (!names.empty() && kind < 7) {
      set_option(draws, draws.of(names), words);
    } else if (kind == 7 && place < std::ssize(words)) {
      words.erase(words.begin() + place);
    } else if (place < std::ssize(words) && !words[place].starts_with("--")) {
      words[place] = draw_value(draws, words[place]);
    } else if (!names.empty()) {
      set_option(draws, draws.of(names), words);
    }
  }
  return words;
}

// Waits; says so to a command that goes on and on, and kills one that does not listen.
Outcome end_of(Running& running, bool* was_told, bool* was_killed) {
  const auto wait = [&](milliseconds limit) {
    const Clock::time_point end = Clock::now() + limit;
    while (running.alive() && Clock::now() < end) std::this_thread::sleep_for(milliseconds(5));
    return !running.alive();
  };
  running.wait_until_it_listens();
  *was_told = !wait(kPatience);
  if (*was_told) running.send(SIGTERM);
  *was_killed = *was_told && !wait(kLimit);
  if (*was_killed) running.send(SIGKILL);
  return running.wait();
}

// What no user should see: our sources, LibTorch's words, what a crash leaves.
std::string unfit(const std::string& text) {
  static const std::regex kUnfit(
      R"([\w/-]+\.(cc|cpp|cu|cuh|h):\d+|terminate called|INTERNAL ASSERT|Exception raised from|)"
      R"(what\(\)|Sanitizer|std::|at::|c10|basic_string|vector::|stoll|stod|stoi)");
  std::smatch found;
  return std::regex_search(text, found, kUnfit) ? found.str() : "";
}

TEST(RandomCommands, EachEndsAsDocumented) {
  const std::map<std::string, Words> options = read_options();
  const Words keys = read_keys();
  ASSERT_GT(options.size(), 20u);
  ASSERT_GT(keys.size(), 80u);
  const fs::path place = World::get().folder("commands");
  make_place(place);
  const std::map<std::string, std::string> inputs = inputs_of(place);
  std::map<int, int> codes;
  int told = 0;
  for (int64_t line = 0; line < test::asked("HALO_COMMAND_LINES", 300); ++line) {
    Draws draws(static_cast<uint64_t>(line));
    Process process{draw_line(draws, options, keys)};
    process.directory = place;
    process.max_memory_bytes = int64_t{12} << 30;
    if (draws.below(8) == 0) process.standard_output = "/dev/full";
    std::string shown = fmt::format("line {}: halo", line);
    for (const std::string& word : process.arguments) {
      shown += " '" + word.substr(0, 60) + "'";
    }
    SCOPED_TRACE(shown);
    bool was_told = false, was_killed = false;
    Running running(process);
    const Outcome outcome = end_of(running, &was_told, &was_killed);
    told += was_told;
    ++codes[outcome.code];
    EXPECT_FALSE(was_killed) << "does not end\n" << outcome.err;
    EXPECT_TRUE(was_killed || (outcome.code >= 0 && outcome.code <= 5))
        << "code " << outcome.code << ", signal " << outcome.signal << "\n"
        << outcome.err;
    EXPECT_EQ(unfit(outcome.err + outcome.out), "") << outcome.err.substr(0, 2000);
    if (outcome.code > 0) EXPECT_NE(outcome.err, "");
    for (const auto& entry : fs::recursive_directory_iterator(place)) {
      EXPECT_FALSE(entry.path().string().ends_with(".tmp")) << entry.path();
    }
    EXPECT_FALSE(fs::exists("/dev/full.tmp") || fs::exists("/dev/null.tmp"));
    const std::map<std::string, std::string> now = inputs_of(place);
    if (now == inputs) continue;
    for (const auto& input : inputs) {
      const std::string &path = input.first, &hash = input.second;
      const bool is_named = std::ranges::any_of(process.arguments, [&](const std::string& word) {
        return !word.empty() && path == (place / word).string();
      });
      EXPECT_TRUE(is_named || (now.contains(path) && now.at(path) == hash)) << path << " changed";
    }
    fs::remove_all(place);
    fs::create_directories(place);
    make_place(place);
  }
  std::cout << fmt::format("{} command lines, {} of them told to stop; exit codes",
                           test::asked("HALO_COMMAND_LINES", 300), told);
  for (const auto& [code, count] : codes) std::cout << fmt::format(" {}: {}", code, count);
  std::cout << std::endl;
}

}  // namespace
}  // namespace halo::system_test
