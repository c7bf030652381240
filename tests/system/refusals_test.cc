// More wrong input from outside (errors_test.cc): values of options, files for `logits`, outputs,
// and models of other sizes than their tokenizers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/json.h"
#include "halo/data/loader.h"
#include "halo/formats/safetensors.h"
#include "halo/tokenizer/tokenizer.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

using testing::HasSubstr;

std::string text(const fs::path& path) {
  return path.string();
}

fs::path place() {
  return World::get().folder("refusals");
}

TEST(Errors, OutputsAreTriedFirst) {
  const std::string teacher = text(World::get().teacher()), recipe = text(World::get().recipe());
  for (const std::string out : {"/nowhere/x", "/dev/full"}) {
    expect_error(run_halo({"eval", "--recipe", recipe, "--out", out}), 1, {out});
    expect_error(run_halo({"logits", teacher, "--ids", "/nowhere/ids", "--out", out}), 1, {out});
  }
  EXPECT_FALSE(fs::is_regular_file("/dev/full"));
  EXPECT_FALSE(fs::exists("/dev/full.tmp"));
  for (const char* option : {"--out", "--tokenizer"}) {
    Words words = {"data",
                   "pack",
                   text(World::get().path("train.jsonl")),
                   "--tokenizer",
                   teacher,
                   "--out",
                   text(place() / "out")};
    *(std::ranges::find(words, option) + 1) = "";
    EXPECT_EQ(run_halo(words).code, 2) << option;
  }
}

// The file of the second task is looked for before the first one's items are asked.
TEST(Errors, FilesOfAllTasksAreLookedForFirst) {
  const fs::path data = place();
  write_file(data / "lambada.jsonl", "{\"id\": \"a\", \"text\": \"It was so\"}\n");
  const fs::path samples = data / "samples";
  expect_error(run_halo({"eval", text(World::get().teacher()), "--tasks", "lambada,piqa", "--data",
                         text(data), "--log-samples", text(samples)}),
               1, {"piqa.jsonl"});
  EXPECT_FALSE(fs::exists(samples) || fs::exists(text(samples) + ".tmp"));
}

TEST(Errors, NumbersForLogits) {
  const fs::path file = place() / "ids.safetensors";
  const auto run = [&](std::vector<std::pair<std::string, at::Tensor>> tensors) {
    std::vector<TensorView> views;
    for (auto& [name, tensor] : tensors) {
      tensor = tensor.contiguous();
      views.push_back({name,
                       DType::kI64,
                       tensor.sizes().vec(),
                       {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
    }
    write_safetensors(file, views);
    return run_halo({"logits", text(World::get().teacher()), "--ids", text(file), "--out",
                     text(file) + ".out", "--generate", "1"});
  };
  const at::Tensor ones = at::ones({1, 4}, at::kLong);
  EXPECT_EQ(run({{"input_ids", ones}, {"prompt_ids", ones}}).code, 0);
  expect_error(run({{"input_ids", ones * 360}}), 1, {"input_ids", "0 to 359", "360"});
  expect_error(run({{"input_ids", -ones}}), 1, {"input_ids", "0 to 359", "-1"});
  expect_error(run({{"input_ids", at::empty({1, 0}, at::kLong)}}), 1, {"input_ids", "empty"});
  expect_error(run({{"prompt_ids", ones * 400}}), 1, {"prompt_ids", "0 to 359"});
  expect_error(run({{"input_ids", ones}, {"position_ids", at::ones({1, 3}, at::kLong)}}), 1,
               {"position_ids", "[1 or 1, 4]"});
  expect_error(run({{"input_ids", ones}, {"position_ids", -ones}}), 1, {"position_ids"});
}

// Found before the stage begins, not when it writes its model.
TEST(Errors, WhatIsNoStudentIsRefused) {
  const World& world = World::get();
  const fs::path wide = place() / "wide";
  fs::copy(world.reference() / "select" / "step-0", wide, fs::copy_options::recursive);
  json::object config = read_json(wide / "config.json").as_object();
  config["vocab_size"] = 400;
  write_json(wide / "config.json", config);
  for (const char* stage : {"align", "select", "distill", "finetune", "on-policy", "scale"}) {
    const auto run = [&](const fs::path& student) {
      return run_halo({stage, "--recipe", text(world.recipe()), "--student", text(student), "--out",
                       text(place() / "out")});
    };
    expect_error(run(world.teacher()), 1, {text(world.teacher()), "no hybrid"});
    expect_error(run(wide), 1, {text(wide), "vocab_size is 400, the teacher's 360"});
  }
}

TEST(Errors, MoreLayersThanTheSweepHas) {
  const fs::path table = place() / "sweep.csv";
  write_file(table, "layer,squad,hs\n0,0.1,0.5\n1,0.2,0.5\n2,0.3,0.4\n");
  const auto keep = [&](const char* k) {
    return run_halo({"select", "--scores", text(table), "--keep", k, "--recall", "squad",
                     "--commonsense", "hs"});
  };
  EXPECT_EQ(keep("3").code, 0);
  expect_error(keep("9"), 1, {"--keep 9", "3 layers"});
}

TEST(Errors, DamagedCachesAreNamed) {
  const fs::path data = place();
  write_file(data / "lambada.jsonl", "{\"id\": \"a\", \"text\": \"It was so\"}\n");
  const Words words = {
      "eval",    text(World::get().teacher()), "--tasks", "lambada", "--data", text(data),
      "--cache", text(data / "cache")};
  ASSERT_EQ(run_halo(words).code, 0);
  for (const auto& entry : fs::recursive_directory_iterator(data / "cache")) {
    if (!entry.is_regular_file()) continue;
    for (const char* line : {"[]\n", "{\"key\": \"a\", \"scores\": [1], \"texts\": []}\n",
                             "{\"key\": \"a\", \"scores\": [], \"texts\": [1]}\n"}) {
      write_file(entry.path(), line);
      expect_error(run_halo(words), 1, {entry.path().filename().string(), "line 1", "remove"});
    }
  }
}

Outcome synthesize(const fs::path& teacher, const fs::path& out) {
  return run_halo({"data", "synthesize", text(teacher), "--out", text(out), "--tokens", "2000",
                   "--length", "8", "--batch", "16"});
}

std::string provenance(const fs::path& shards) {
  return TokenShard(expand_shards(text(shards)).front()).header().provenance;
}

TEST(Errors, SynthesizeReadsTeachersInShards) {
  const fs::path teacher = sharded_teacher(place() / "sharded"), out = place();
  const Outcome outcome = synthesize(teacher, out / "sharded");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(synthesize(World::get().teacher(), out / "whole").code, 0);
  const TokenShard a(expand_shards(text(out / "sharded")).front()),
      b(expand_shards(text(out / "whole")).front());
  ASSERT_EQ(a.header().num_tokens, b.header().num_tokens);
  std::vector<int64_t> x(a.header().num_tokens), y(x.size());
  a.copy_tokens(0, std::ssize(x), x.data());
  b.copy_tokens(0, std::ssize(y), y.data());
  EXPECT_EQ(x, y);
  for (const char* file : {"model-0.safetensors", "model-1.safetensors"}) {
    EXPECT_THAT(provenance(out / "sharded"), HasSubstr(hash_file(teacher / file)));
  }
  EXPECT_THAT(provenance(out / "whole"),
              HasSubstr(hash_file(World::get().teacher() / "model.safetensors")));
}

// Answers may be another model's, whose tokens are the same.
TEST(Errors, SynthesizeWithAnswersOfAnotherModel) {
  const fs::path teacher = place() / "chat", other = sharded_teacher(place() / "sharded"),
                 foreign = place() / "foreign", out = place();
  fs::copy(World::get().teacher(), teacher);
  write_json(teacher / "tokenizer_config.json",
             json::object{{"chat_template",
                           "{% for m in messages %}The {{ m.content }}<|endoftext|>{% endfor %}"}});
  const auto converse = [&](const fs::path& by) {
    return run_halo({"data", "synthesize", text(teacher), "--chat", "--answers-by", text(by),
                     "--out", text(out / "made"), "--tokens", "500", "--length", "128"});
  };
  fs::copy(World::get().teacher(), foreign);
  write_file(foreign / "tokenizer.json", train_bpe({"The dog"}, 260, {"<|endoftext|>"}));
  expect_error(converse(foreign), 1, {text(foreign), "another tokenizer"});
  const Outcome outcome = converse(other);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(provenance(out / "made"),
              testing::AllOf(HasSubstr(hash_file(teacher / "model.safetensors")),
                             HasSubstr(hash_file(other / "model-1.safetensors"))));
  expect_error(run_halo({"data", "synthesize", text(teacher), "--answers-by", text(other), "--out",
                         text(out / "none")}),
               1, {"--answers-by", "add --chat"});
}

// Rows of the model for which the tokenizer has no token are no text.
TEST(Errors, SynthesizeWithMoreRowsThanTokens) {
  const fs::path teacher = place() / "padded", out = place() / "out";
  fs::copy(World::get().teacher(), teacher);
  write_file(teacher / "tokenizer.json",
             train_bpe({"The dog finds The old letter. A river. The engine finds The castle"}, 280,
                       {"<|endoftext|>"}));
  const Outcome outcome = synthesize(teacher, out);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json::object counts = parse_json(outcome.out, "counts").as_object();
  EXPECT_GT(counts.at("documents_dropped").to_number<int64_t>(), 0);
  EXPECT_GT(counts.at("documents_sampled").to_number<int64_t>(),
            counts.at("documents_dropped").to_number<int64_t>());
}

}  // namespace
}  // namespace halo::system_test
