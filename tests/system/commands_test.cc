// The commands beside `convert`, each run as users run it, against what the library or another
// command says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <numeric>
#include <sstream>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/formats/safetensors.h"
#include "halo/formats/token_shard.h"
#include "halo/model/decoder.h"
#include "halo/tokenizer/tokenizer.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

json::object json_of(const Words& words) {
  return parse_json(output_of(words), words.front()).as_object();
}

std::string finished_model() {
  return (World::get().reference() / "model").string();
}

std::string teacher() {
  return World::get().teacher().string();
}

TEST(Commands, HelpHasAnExample) {
  for (const Words& command : {Words{"init"},
                               {"convert"},
                               {"transfer"},
                               {"align"},
                               {"align-attention"},
                               {"select"},
                               {"distill"},
                               {"finetune"},
                               {"on-policy"},
                               {"scale"},
                               {"sweep"},
                               {"pretrain"},
                               {"data", "pack"},
                               {"data", "synthesize"},
                               {"data", "inspect"},
                               {"eval"},
                               {"logits"},
                               {"generate"},
                               {"chat"},
                               {"serve"},
                               {"tokenize"},
                               {"inspect"},
                               {"import"},
                               {"export"},
                               {"quantize"},
                               {"plan"},
                               {"launch"},
                               {"report"},
                               {"bench", "train"},
                               {"bench", "kernels"},
                               {"bench", "tokenize"},
                               {"bench", "load"},
                               {"bench", "comm"},
                               {"doctor"}}) {
    Words words = command;
    words.push_back("--help");
    const std::string example = fmt::format(": halo {}", fmt::join(command, " "));
    EXPECT_THAT(output_of(words),
                AnyOf(HasSubstr("Example" + example), HasSubstr("Examples" + example)));
  }
}

TEST(Commands, EvalAsksModelsTheItemsOfTasks) {
  const fs::path folder = World::get().folder("tasks");
  write_file(folder / "copa.jsonl",
             R"({"id": "a", "context": "The old dog", "choices": ["follows", "is"], "label": 0}
{"id": "b", "context": "The river", "choices": ["is", "follows the dog"], "label": 1}
)");
  const fs::path samples = folder / "samples.jsonl";
  const json::object result =
      json_of({"eval", teacher(), finished_model(), "--tasks", "copa,copying", "--data", folder,
               "--limit", "2", "--json", "--log-samples", samples, "--out", folder / "out.json"});
  EXPECT_EQ(read_json(folder / "out.json"), json::value(result));
  const json::array& models = result.at("models").as_array();
  ASSERT_EQ(models.size(), 2u);
  EXPECT_EQ(models[0].at("model").as_string(), teacher());
  const json::object& figures = models[1].at("tasks").at("copa").as_object();
  for (const char* name : {"acc", "acc_norm"}) {
    const json::object& figure = figures.at(name).as_object();
    EXPECT_EQ(figure.at("n"), 2);
    for (const char* key : {"value", "stderr", "difference", "difference_stderr"}) {
      EXPECT_TRUE(figure.contains(key)) << key;
    }
  }
  EXPECT_TRUE(models[0].at("tasks").at("copying").as_object().contains("exact_match"));

  std::istringstream lines(read_file(samples));
  std::vector<std::string> seen;
  for (std::string line; std::getline(lines, line);) {
    const json::value sample = parse_json(line, "samples");
    seen.push_back(fmt::format("{} {}", std::string(sample.at("task").as_string()),
                               std::string(sample.at("id").as_string())));
    if (seen.back() != "copa b") continue;
    EXPECT_EQ(sample.at("loglikelihoods").as_array().size(), 2u);
    EXPECT_EQ(sample.at("label"), 1);
  }
  const std::vector<std::string> one_model = {"copa a", "copa b", "copying 0", "copying 1"};
  EXPECT_EQ(seen.size(), 8u);
  seen.resize(4);
  EXPECT_EQ(seen, one_model);

  // Processes deal the items, to the same bits, and the first one writes.
  Words words = {"launch", "-n", "2", "--", "eval", teacher(), finished_model()};
  for (const std::string& word : Words{"--tasks", "copa,copying", "--data", folder, "--limit", "2"})
    words.push_back(word);
  for (const std::string& word : Words{"--json", "--log-samples", folder / "again.jsonl", "--cache",
                                       folder / "cache", "--threads", "1"})
    words.push_back(word);
  const json::object dealt = json_of(words);
  EXPECT_EQ(dealt.at("models").at(1).at("tasks").at("copying"),
            result.at("models").at(1).at("tasks").at("copying"));
  EXPECT_EQ(std::ranges::count(read_file(folder / "again.jsonl"), '\n'), 8);

  const std::string table = output_of(
      {"eval", finished_model(), "--teacher", teacher(), "--tasks", "copa", "--data", folder});
  EXPECT_THAT(table, HasSubstr("difference to the first"));
  expect_error(run_halo({"eval", teacher()}), 2, {"--tasks or --recipe"});
  expect_error(run_halo({"eval", teacher(), "--tasks", "copas"}), 1, {"did you mean 'copa'?"});
  expect_error(run_halo({"eval", teacher(), "--tasks", "boolq", "--data", folder}), 1,
               {"no boolq.jsonl"});
}

TEST(Commands, PackInspectAndTokenizeAgree) {
  const fs::path folder = World::get().folder("pack");
  const std::string out = (folder / "shards").string();
  const json::object counts = json_of({"data", "pack", World::get().path("train.jsonl").string(),
                                       "--tokenizer", teacher(), "--out", out});
  const json::object shard =
      json_of({"data", "inspect", out + "/shard-00000.halotok", "--tokenizer", teacher()});
  EXPECT_EQ(shard.at("documents"), 24);
  EXPECT_EQ(shard.at("tokens"), counts.at("tokens"));
  const json::object whole = json_of({"data", "inspect", out, "--tokenizer", teacher()});
  EXPECT_EQ(whole.at("documents"), shard.at("documents"));
  EXPECT_EQ(whole.at("first"), shard.at("first"));
  EXPECT_EQ(whole.at("shards").as_array().size(), 1u);

  const std::string text = "The old dog follows the river. \u00e9";
  write_file(folder / "in.jsonl", json::serialize(json::object{{"text", text}}) + "\n");
  const std::string ids = output_of({"tokenize", teacher(), "--jsonl", folder / "in.jsonl"});
  EXPECT_EQ(json::value_to<std::vector<int64_t>>(parse_json(ids, "ids").at("ids")),
            Tokenizer(World::get().teacher() / "tokenizer.json").encode(text));
  EXPECT_EQ(output_of({"tokenize", teacher(), text}), ids);
  expect_error(run_halo({"tokenize", teacher()}), 2, {"a text or --jsonl FILE"});
  expect_error(run_halo({"tokenize", teacher(), text, "--jsonl", folder / "in.jsonl"}), 2,
               {"a text or --jsonl FILE"});
  expect_error(run_halo({"tokenize", teacher(), "1 2 3", "--decode"}), 2, {"go with --jsonl"});
  write_file(folder / "ids.jsonl", ids);
  const std::string back =
      output_of({"tokenize", teacher(), "--jsonl", folder / "ids.jsonl", "--decode"});
  EXPECT_EQ(parse_json(back, "text").at("text").as_string(), text);
  // A folder that is there is not written into.
  expect_error(run_halo({"data", "pack", World::get().path("train.jsonl").string(), "--tokenizer",
                         teacher(), "--out", out}),
               1, {out, "already there"});
}

TEST(Commands, SynthesizeSamplesDocumentsOfTheTeacher) {
  const fs::path folder = World::get().folder("synthesize");
  const auto sample = [&](const std::string& out, const std::string& seed) {
    const json::object counts =
        json_of({"data", "synthesize", teacher(), "--out", (folder / out).string(), "--tokens",
                 "3000", "--length", "96", "--batch", "8", "--seed", seed});
    EXPECT_GE(counts.at("tokens_sampled").as_int64(), 3000);
    return read_file(folder / out / "shard-00000.halotok");
  };
  const std::string first = sample("a", "1");
  EXPECT_EQ(sample("b", "1"), first);
  EXPECT_NE(sample("c", "2"), first);
  const TokenShard shard(folder / "a" / "shard-00000.halotok");
  const int64_t end = Tokenizer(World::get().teacher() / "tokenizer.json").document_end();
  ASSERT_GT(shard.num_documents(), 8);
  for (int64_t d = 0; d < shard.num_documents(); ++d) {
    EXPECT_LE(shard.document_end(d) - shard.document_begin(d), 96);
    int64_t last = -1;
    shard.copy_tokens(shard.document_end(d) - 1, shard.document_end(d), &last);
    EXPECT_EQ(last, end);
  }
}

// With a begin token, documents begin with it and have it nowhere else.
TEST(Commands, SynthesizedDocumentsBeginAsDocumentsDo) {
  const fs::path folder = World::get().folder("synthesize_begin");
  fs::copy(teacher(), folder / "model");
  write_json(folder / "model" / "tokenizer_config.json",
             json::object{{"add_bos_token", true}, {"bos_token", "x"}});
  json_of({"data", "synthesize", (folder / "model").string(), "--out", (folder / "out").string(),
           "--tokens", "3000", "--length", "96", "--batch", "8"});
  const TokenShard shard(folder / "out" / "shard-00000.halotok");
  const Tokenizer tokenizer(World::get().teacher() / "tokenizer.json");
  const int64_t begin = tokenizer.token_id("x").value();
  for (int64_t d = 0; d < shard.num_documents(); ++d) {
    std::vector<int64_t> ids(shard.document_end(d) - shard.document_begin(d));
    shard.copy_tokens(shard.document_begin(d), shard.document_end(d), ids.data());
    EXPECT_LE(ids.size(), 96u);
    EXPECT_EQ(ids.front(), begin);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), begin), 1);
    EXPECT_THAT(tokenizer.token_bytes(ids[1]), testing::MatchesRegex("[A-Z].*"));
    EXPECT_EQ(ids.back(), tokenizer.document_end());
  }
  expect_error(run_halo({"data", "synthesize", (folder / "model").string(), "--out",
                         (folder / "short").string(), "--length", "3"}),
               1, {"--length 3", "4 or more"});
}

constexpr const char* kPretrainRecipe = R"(
text = ["{0}/train.jsonl"]
lengths = [128, 256]
shares = [0.5, 0.5]
[run]
seed = 2
threads = 1
[tokenizer]
vocab_size = 320
[model]
num_layers = 2
hidden_size = 32
intermediate_size = 48
num_heads = 2
num_kv_heads = 1
head_dim = 16
[data]
needle_share = 0.25
[train]
tokens = 16384
sequence_length = 256
tokens_per_step = 1024
learning_rate = 1e-2
warmup_steps = 2
checkpoint_every = 4
)";

TEST(Commands, PretrainMakesATeacherAndResumesToTheSameBits) {
  const fs::path folder = World::get().folder("pretrain");
  write_file(folder / "r.toml",
             fmt::format(fmt::runtime(kPretrainRecipe), World::get().path("").string()));
  const auto train = [&](const fs::path& run, const std::string& crash_at) {
    return run_halo(
        Process{{"pretrain", (folder / "r.toml").string(), "--run", run.string()}, crash_at});
  };
  const Outcome whole = train(folder / "whole", "");
  ASSERT_EQ(whole.code, 0) << whole.err;
  for (const char* point : {"file.before_rename:1", "file.before_rename:2", "train.mid_step:6",
                            "checkpoint.before_manifest:1", "train.mid_step:9"}) {
    ASSERT_EQ(train(folder / "killed", point).signal, SIGKILL) << point;
  }
  EXPECT_EQ(train(folder / "killed", "").code, 0);
  for (const char* file : {"model.safetensors", "tokenizer.json", "config.json"}) {
    EXPECT_EQ(read_file(folder / "killed" / "model" / file),
              read_file(folder / "whole" / "model" / file))
        << file;
  }

  std::istringstream lines(read_file(folder / "whole" / "pretrain" / "metrics.jsonl"));
  std::vector<double> losses;
  for (std::string line; std::getline(lines, line);) {
    losses.push_back(parse_json(line, "line").at("loss").to_number<double>());
  }
  ASSERT_EQ(losses.size(), 16u);
  EXPECT_LT(losses.back(), losses.front() - 0.5);
  const Model model =
      load_model(folder / "whole" / "model", ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
  EXPECT_EQ(model.config.num_layers, 2);
  EXPECT_FALSE(model.config.is_hypenet());
}

TEST(Commands, EvalGivesTheFiguresOfTheSummary) {
  const json::object summary = read_json(World::get().reference() / "summary.json").as_object();
  const fs::path out = World::get().folder("eval") / "eval.json";
  const json::object result = json_of({"eval", finished_model(), "--recipe",
                                       World::get().recipe().string(), "--json", "--out", out});
  const auto without_times = [](const json::object& figures) {
    json::object out = figures;
    for (const char* model : {"teacher", "student"}) out[model].as_object().erase("decode");
    return out;
  };
  for (const char* key : {"training_length", "teacher", "student", "continuations"}) {
    EXPECT_TRUE(without_times(result).at(key) == without_times(summary).at(key)) << key;
  }
  // Keys and values, two bytes each, of one head of 32, in 4 layers.
  EXPECT_EQ(result.at("teacher").at("kv_bytes_per_token"), 2 * 2 * 32 * 4);
  EXPECT_EQ(result.at("teacher").at("state_bytes"), 0);
  EXPECT_LT(result.at("student").at("kv_bytes_per_token").as_int64(), 2 * 2 * 32 * 4);
  EXPECT_GT(result.at("student").at("state_bytes").as_int64(), 0);
  EXPECT_EQ(result.at("student").at("decode").at("256").at("n"), 15);
  ASSERT_EQ(result.at("continuations").as_array().size(), 3u);
  for (const json::value& one : result.at("continuations").as_array()) {
    for (const char* key : {"prompt", "text", "teacher", "student"}) {
      EXPECT_TRUE(one.at(key).is_string()) << key;
    }
    EXPECT_FALSE(one.at("prompt").as_string().empty());
  }
  EXPECT_TRUE(read_json(out) == result);
  EXPECT_NE(output_of({"eval", "--recipe", World::get().recipe().string()}).find("bits a byte"),
            std::string::npos);
}

TEST(Commands, LogitsAreTheDecodersAndGreedyGoesOnFromThem) {
  at::NoGradGuard no_grad;
  const fs::path folder = World::get().folder("logits");
  const at::Tensor ids = at::arange(24, at::kLong).view({2, 12}) * 7 + 3;
  const at::Tensor positions = at::arange(12, at::kLong).repeat({2, 1}) + 1000;
  const auto run = [&](const std::vector<TensorView>& inputs, const Words& more) {
    write_safetensors(folder / "in.safetensors", inputs);
    Words words = {"logits", finished_model(),          "--ids", folder / "in.safetensors",
                   "--out",  folder / "out.safetensors"};
    words.insert(words.end(), more.begin(), more.end());
    EXPECT_EQ(output_of(words), "");
    return SafetensorsFile(folder / "out.safetensors");
  };
  const Model model =
      load_model(finished_model(), ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
  const auto expected = [&](const at::Tensor& input_ids, const at::Tensor& at_positions) {
    const int64_t length = input_ids.size(1);
    Batch batch =
        make_batch(input_ids.flatten(), {0, length, 2 * length}, at_positions.flatten(), at::kCPU);
    batch.kernels = Kernels::kReference;
    return logits(model.weights, decode(model.weights, batch), batch.kernels).view({2, length, -1});
  };
  const at::Tensor plain = at::arange(12, at::kLong).repeat({2, 1});
  EXPECT_TRUE(at::equal(to_tensor(run({to_view("input_ids", ids)}, {}).get("logits")),
                        expected(ids, plain)));
  const at::Tensor shifted = to_tensor(
      run({to_view("input_ids", ids), to_view("position_ids", positions)}, {}).get("logits"));
  EXPECT_TRUE(at::equal(shifted, expected(ids, positions)));
  EXPECT_FALSE(at::equal(shifted, expected(ids, plain)));

  const SafetensorsFile greedy = run({to_view("prompt_ids", ids)}, {"--generate", "5"});
  const at::Tensor next = to_tensor(greedy.get("greedy_ids")),
                   rows = to_tensor(greedy.get("greedy_logits"));
  ASSERT_EQ(next.sizes(), (std::vector<int64_t>{2, 5}));
  EXPECT_TRUE(at::equal(rows.argmax(-1), next));
  // Through the cache as in one go.
  const at::Tensor all = at::cat({ids, next}, 1);
  const at::Tensor whole = expected(all, at::arange(17, at::kLong).repeat({2, 1}));
  EXPECT_TRUE(at::equal(rows, whole.slice(1, 11, 16)));

  const at::Tensor flat = ids.flatten();
  write_safetensors(folder / "in.safetensors", std::vector{to_view("input_ids", flat)});
  expect_error(run_halo({"logits", finished_model(), "--ids", folder / "in.safetensors", "--out",
                         folder / "x"}),
               1, {"input_ids", "[batch, tokens]"});
}

TEST(Commands, GenerateContinuesTheSameWayForTheSameSeed) {
  const auto text = [](const std::string& seed) {
    return output_of({"generate", finished_model(), "The old dog", "--max-tokens", "20",
                      "--temperature", "1", "--seed", seed});
  };
  const std::string first = text("1");
  EXPECT_TRUE(first.starts_with("The old dog"));
  EXPECT_GT(first.size(), std::string("The old dog\n").size());
  EXPECT_EQ(text("1"), first);
  EXPECT_NE(text("2"), first);
}

// A copy of the teacher's folder that may be changed.
fs::path teacher_copy(const char* name) {
  const fs::path folder = World::get().folder(name) / "model";
  fs::copy(teacher(), folder);
  return folder;
}

TEST(Commands, GenerateEndsAtAnyTokenOfTheGenerationConfig) {
  const fs::path model = teacher_copy("generate_ends");
  const auto text = [&](const char* tokens) {
    return output_of({"generate", model.string(), "The old dog", "--max-tokens", tokens});
  };
  const std::string one = text("1"), eight = text("8");
  json::array all;
  for (int64_t id = 0; id < read_model_config(model).vocab_size; ++id) all.push_back(id);
  write_json(model / "generation_config.json", json::object{{"eos_token_id", all}});
  EXPECT_EQ(text("8"), one);  // with the token, which is no special one
  write_json(model / "generation_config.json", json::object{{"eos_token_id", nullptr}});
  EXPECT_EQ(text("8"), eight);
}

TEST(Commands, GenerateBeginsAsTheTokenizerDoesAndKnowsItsRows) {
  const fs::path model = teacher_copy("generate_begins");
  const auto text = [&](const std::string& prompt) {
    return run_halo({"generate", model.string(), prompt, "--max-tokens", "8"});
  };
  const std::string bare = text("The old dog").out, begun = text("<|endoftext|>The old dog").out;
  write_json(model / "tokenizer_config.json",
             json::object{{"add_bos_token", true}, {"bos_token", "<|endoftext|>"}});
  EXPECT_EQ("<|endoftext|>" + text("The old dog").out, begun);
  EXPECT_NE(text("The old dog").out, bare);
  EXPECT_EQ(text("<|endoftext|>The old dog").out, begun);  // once

  json::value tokenizer = read_json(model / "tokenizer.json");
  const int64_t rows = read_model_config(model).vocab_size;
  tokenizer.at("added_tokens")
      .as_array()
      .push_back(json::object{{"id", rows}, {"content", "<more>"}, {"special", true}});
  write_json(model / "tokenizer.json", tokenizer);
  EXPECT_EQ(text("The old dog").code, 0);
  expect_error(text("The <more> dog"), 1, {"'<more>'", std::to_string(rows)});
}

TEST(Commands, GenerateTakesFilesStopsAndSaysHowFast) {
  const fs::path model = teacher_copy("generate_more");
  const auto run = [&](const Words& more) {
    Words words = {"generate", model.string(), "--max-tokens", "20"};
    words.insert(words.end(), more.begin(), more.end());
    return run_halo(words);
  };
  const std::string prompt = "The old dog";
  const Outcome plain = run({prompt});
  ASSERT_EQ(plain.code, 0) << plain.err;
  EXPECT_THAT(plain.err, testing::ContainsRegex(
                             "generate: [0-9]+ \\+ 20 tokens, the first after [0-9.]+ s, then "
                             "[0-9.]+ tokens/s; ended at --max-tokens"));
  const fs::path file = model / "prompt.txt";
  write_file(file, prompt + "\n");
  EXPECT_EQ(run({"--file", file.string()}).out, plain.out);
  expect_error(run({prompt, "--file", file.string()}), 1, {"not both"});
  expect_error(run({"--file", (model / "none").string()}), 1, {"none"});

  const std::string made = plain.out.substr(prompt.size());
  ASSERT_GT(made.size(), 6u);
  const std::string stop = made.substr(4, 2);
  const Outcome stopped = run({prompt, "--stop", "not there", "--stop", stop});
  EXPECT_EQ(stopped.out, prompt + made.substr(0, made.find(stop)) + "\n");
  EXPECT_THAT(stopped.err, HasSubstr("ended at a stop string"));
  expect_error(run({prompt, "--stop", ""}), 1, {"stop string is empty"});

  // An answer alone, to the message as the model's template has it.
  write_json(model / "tokenizer_config.json",
             json::object{{"chat_template",
                           "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
                           "{% if add_generation_prompt %}<answer>{% endif %}"}});
  const std::string whole = "<user>" + prompt + "<answer>";
  EXPECT_EQ(whole + run({"--chat", prompt}).out, run({whole}).out);
}

TEST(Commands, InspectCountsWhatIsInTheFile) {
  const json::object about = json_of({"inspect", finished_model(), "--json"});
  const SafetensorsFile file(fs::path(finished_model()) / "model.safetensors");
  int64_t elements = 0;
  for (const TensorView& tensor : file.tensors()) elements += tensor.numel();
  EXPECT_EQ(about.at("parameters"), elements);
  const std::string mixers(about.at("mixers").as_string());
  EXPECT_EQ(mixers.size(), 4u);
  EXPECT_EQ(std::ranges::count(mixers, 'A'), 1);
  // One attention layer of one head of 32, K and V in bf16; three states of two heads, fp32.
  EXPECT_EQ(about.at("kv_bytes_per_token_bf16"), 2 * 32 * 2);
  EXPECT_EQ(about.at("state_bytes_per_sequence"), 3 * 2 * 32 * 32 * 4);
}

TEST(Commands, PlanKnowsTokensStepsAndSizes) {
  const json::object plan = json_of({"plan", World::get().recipe().string(), "--json"});
  const std::vector<std::pair<std::string, int64_t>> expected = {{"align", 6144},
                                                                 {"align-attention", 4096},
                                                                 {"distill", 6144},
                                                                 {"finetune", 4096},
                                                                 {"on-policy", 4096}};
  const json::array& stages = plan.at("stages").as_array();
  ASSERT_EQ(stages.size(), expected.size());
  double flops = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(stages[i].at("stage").as_string(), expected[i].first);
    EXPECT_EQ(stages[i].at("tokens"), expected[i].second);
    EXPECT_EQ(stages[i].at("steps"), expected[i].second / 1024);
    flops += stages[i].at("flops").to_number<double>();
    // A checkpoint of the stage is no larger than what the plan asks of the disk.
    uint64_t bytes = 0;
    for (const auto& entry :
         fs::recursive_directory_iterator(World::get().reference() / expected[i].first)) {
      if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
    }
    if (i >= 2) {  // of the whole student
      EXPECT_GE(stages[i].at("disk_bytes").to_number<double>(), 0.95 * double(bytes));
    }
  }
  // 6 FLOPs a parameter and trained token in stage 3, 8 in stage 2, at least.
  const double student = plan.at("student_parameters").to_number<double>();
  EXPECT_GT(stages[3].at("flops").to_number<double>(), 6 * student * 4096);
  EXPECT_GT(stages[2].at("flops").to_number<double>(), 8 * student * 6144 * 0.9);
  const double rate = plan.at("matrix_gflops").to_number<double>() * 1e9;
  EXPECT_NEAR(plan.at("seconds_at_least").to_number<double>() * rate / flops, 1, 1e-6);
  EXPECT_EQ(plan.at("student_parameters"),
            json_of({"inspect", finished_model(), "--json"}).at("parameters"));
  expect_error(run_halo({"plan", World::get().recipe().string(), "--set", "align.tokns=1"}), 1,
               {"did you mean 'tokens'"});
}

TEST(Commands, PlanSaysWhetherTheRecipeFits) {
  const auto plan = [](const std::string& gib) {
    return run_halo({"plan", World::get().recipe().string(), "--memory", gib, "--gflops", "100"});
  };
  const Outcome fits = plan("4");
  EXPECT_EQ(fits.code, 0) << fits.err;
  EXPECT_THAT(fits.out, HasSubstr("every stage fits"));
  const Outcome does_not = plan("0.001");
  EXPECT_EQ(does_not.code, 4) << does_not.err;
  EXPECT_THAT(does_not.out, HasSubstr("does not fit"));
  EXPECT_THAT(does_not.err, HasSubstr("the recipe is valid"));
}

TEST(Commands, SelectFromATableOfScores) {
  const fs::path table = World::get().folder("scores") / "sweep.csv";
  // Layer 3 hurts recall most, 0 and 2 alike; rows in any order, the unswapped model aside.
  write_file(table,
             "layer,squad,fda,hellaswag,arc\n"
             "2,0.70,0.50,0.60,0.60\n"
             "original,0.99,0.99,0.99,0.99\n"
             "0,0.70,0.50,0.60,0.60\n"
             "3,0.10,0.10,0.60,0.60\n"
             "1,0.80,0.60,0.70,0.70\n");
  const Words select = {"select", "--scores", table, "--keep", "2", "--json"};
  const json::object result = json_of(select);
  EXPECT_EQ(json::value_to<std::vector<int64_t>>(result.at("layers")),
            (std::vector<int64_t>{0, 3}));
  const auto scores = json::value_to<std::vector<double>>(result.at("scores"));
  ASSERT_EQ(scores.size(), 4u);
  EXPECT_NEAR(scores[0], 1, 1e-6);  // (0.7 - 0.6) / (0.7 - 0.6)
  EXPECT_EQ(scores[1], 0);
  EXPECT_EQ(scores[2], scores[0]);
  EXPECT_NEAR(scores[3], 6, 1e-6);
  Words named = select;
  named.insert(named.end(), {"--recall", "hellaswag", "--commonsense", "squad,fda"});
  EXPECT_EQ(json_of(named).at("layers"), json::array({0, 2}));
  named.back() = "squad,fdb";
  expect_error(run_halo(named), 1, {"fdb", "did you mean 'fda'"});
}

TEST(Commands, BenchAndDoctorPrintJson) {
  const json::object bench =
      json_of({"bench", "train", "--teacher", teacher(), "--student", finished_model(),
               "--sequence-length", "64", "--rows", "2", "--steps", "2", "--threads", "1"});
  EXPECT_GT(bench.at("tokens_per_second").to_number<double>(), 0);
  EXPECT_EQ(bench.at("seconds").as_array().size(), 2u);
  EXPECT_GT(json_of({"doctor", "--json"}).at("matrix_gflops").to_number<double>(), 0);
}

}  // namespace
}  // namespace halo::system_test
