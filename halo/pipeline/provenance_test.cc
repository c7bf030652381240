#include "halo/pipeline/provenance.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "halo/base/files.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

// Writes a file and says that it changed an hour ago.
void write_old(const fs::path& path, std::string_view text, int64_t more_ns = 0) {
  fs::create_directories(path.parent_path());
  write_file(path, text);
  const timespec time{.tv_sec = 1'600'000'000, .tv_nsec = more_ns};
  const timespec times[] = {time, time};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
}

std::string hash_of(const json::object& about) {
  return std::string(about.at("hash").as_string());
}

TEST(FileHashes, ReadOnlyWhatHasAnotherSizeOrTime) {
  const test::Folder folder;
  const fs::path path = folder / "a.bin";
  FileHashes hashes(folder.path());
  write_old(path, "first");
  const json::object first = hashes.describe(path);
  EXPECT_EQ(first.at("path"), "a.bin");
  EXPECT_EQ(first.at("size"), 5);
  EXPECT_EQ(first.at("modified"), 1'600'000'000'000'000'000);
  EXPECT_EQ(hash_of(first), hash_file(path));
  write_old(path, "other");  // same size, same time: taken to be as it was
  EXPECT_EQ(hash_of(hashes.describe(path)), hash_of(first));
  write_old(path, "other", 1);
  EXPECT_EQ(hash_of(hashes.describe(path)), hash_file(path));
  write_old(path, "longer", 1);
  EXPECT_EQ(hash_of(hashes.describe(path)), hash_file(path));
}

TEST(FileHashes, AFileThatHasJustChangedIsReadAgain) {
  const test::Folder folder;
  FileHashes hashes(folder.path());
  write_file(folder / "a.bin", "first");
  EXPECT_EQ(hashes.describe(folder / "a.bin").at("modified"), 0);
  write_file(folder / "a.bin", "other");
  EXPECT_EQ(hash_of(hashes.describe(folder / "a.bin")), hash_file(folder / "a.bin"));
}

TEST(FileHashes, ARecordIsRememberedWhereTheFolderIsNow) {
  const test::Folder folder;
  write_old(folder / "run" / "in.bin", "inside");
  write_old(folder / "out.bin", "outside");
  FileHashes before(folder / "run/");
  json::array files;
  for (const fs::path& path : {folder / "run" / "in.bin", folder / "out.bin"}) {
    json::object about = before.describe(path);
    about["of"] = "teacher";
    about["name"] = path.filename().string();
    about["hash"] = "as recorded";
    files.push_back(about);
  }
  fs::rename(folder / "run", folder / "moved");
  FileHashes now(folder / "moved");
  now.remember({{"files", files}});
  EXPECT_EQ(hash_of(now.describe(folder / "moved" / "in.bin")), "as recorded");
  EXPECT_EQ(hash_of(now.describe(folder / "out.bin")), "as recorded");
}

class Inputs : public testing::Test {
 protected:
  Inputs() {
    for (const char* model : {"teacher", "student", "attention"}) {
      write_old(folder_ / model / "config.json", "{}");
      write_old(folder_ / model / "tokenizer.json", "{}");
      const float value = 1;
      write_safetensors(
          folder_ / model / "model.safetensors",
          std::vector{TensorView{"w", DType::kF32, {1}, std::as_bytes(std::span(&value, 1))}});
    }
    for (const char* shard : {"a.halotok", "b.halotok", "held.halotok"}) {
      write_old(folder_ / shard, shard);
    }
    recipe_.teacher = (folder_ / "teacher").string();
    recipe_.data.shards = {(folder_ / "a.halotok").string(), (folder_ / "b.halotok").string()};
    recipe_.eval.held_out = (folder_ / "held.halotok").string();
  }

  json::object describe(const std::string& stage, bool models = true) const {
    FileHashes hashes(folder_.path());
    const Stage& row = find_stage(pipeline_stages(), stage);
    std::vector<fs::path> inputs;
    for (const StageInput& input : row.inputs) inputs.push_back(folder_ / input.option);
    return describe_inputs(row, recipe_, models ? &inputs : nullptr, hashes);
  }

  // What is said to have changed since `before`.
  std::vector<std::string> changed(const std::string& stage, const json::object& before,
                                   bool models = true) const {
    std::vector<std::string> out;
    for (const Change& change :
         compare_inputs(find_stage(pipeline_stages(), stage), before, describe(stage, models))) {
      out.push_back((change.model ? "model: " : "") + change.text);
    }
    return out;
  }

  test::Folder folder_;
  Recipe recipe_;
};

TEST_F(Inputs, SettingsThatAStageReads) {
  const json::object distill = describe("distill"), scale = describe("scale");
  EXPECT_EQ(distill.at("settings").at("distill.clip"), "1.0");
  EXPECT_FALSE(distill.at("settings").as_object().contains("data.shards"));
  EXPECT_THAT(changed("distill", distill), IsEmpty());
  // Time, memory, what is kept, other stages.
  recipe_.run.threads = 7;
  recipe_.distill.checkpoint_every = 3;
  recipe_.gates.distill_kl = 0.1;
  recipe_.align.learning_rate = 0.5;
  EXPECT_THAT(changed("distill", distill), IsEmpty());
  recipe_.distill.clip = 2;
  recipe_.run.compute = at::kBFloat16;
  EXPECT_THAT(changed("distill", distill),
              ElementsAre("run.compute = \"float32\", which is \"bfloat16\" now",
                          "distill.clip = 1.0, which is 2.0 now"));
  // The training length is the longest of all stages that train.
  recipe_.run.compute = at::kFloat;
  EXPECT_THAT(changed("scale", scale), IsEmpty());
  recipe_.finetune.sequence_length *= 2;
  EXPECT_THAT(changed("scale", scale),
              ElementsAre("longest sequence trained on = 16384, which is 32768 now"));
  EXPECT_THAT(changed("align", describe("align")), IsEmpty());
}

TEST_F(Inputs, FilesByWhatTheyHold) {
  const json::object before = describe("distill");
  // Elsewhere, under another name.
  fs::rename(folder_ / "b.halotok", folder_ / "c.halotok");
  recipe_.data.shards[1] = (folder_ / "c.halotok").string();
  EXPECT_THAT(changed("distill", before), IsEmpty());
  write_old(folder_ / "c.halotok", "B.halotok", 1);
  EXPECT_THAT(changed("distill", before), ElementsAre("other data.shards (c.halotok)"));
  EXPECT_THAT(changed("select", describe("select")), IsEmpty());
  write_old(folder_ / "c.halotok", "b.halotok", 2);
  EXPECT_THAT(changed("distill", before), IsEmpty());
  std::swap(recipe_.data.shards[0], recipe_.data.shards[1]);
  EXPECT_THAT(changed("distill", before), ElementsAre(StartsWith("other data.shards")));
  std::swap(recipe_.data.shards[0], recipe_.data.shards[1]);
  recipe_.data.shards.pop_back();
  EXPECT_THAT(changed("distill", before),
              ElementsAre("other data.shards (2 files where there are 1 now)"));
  recipe_.data.shards.push_back((folder_ / "c.halotok").string());
  write_old(folder_ / "held.halotok", "HELD", 1);
  write_old(folder_ / "teacher" / "tokenizer.json", "[]", 1);
  EXPECT_THAT(changed("distill", before), ElementsAre("another teacher (tokenizer.json)",
                                                      "other eval.held_out (held.halotok)"));
}

TEST_F(Inputs, ModelsThatAStageStartsFrom) {
  const json::object before = describe("select");
  write_old(folder_ / "attention" / "config.json", "[]", 1);
  EXPECT_THAT(changed("select", before), ElementsAre("model: another attention (config.json)"));
  EXPECT_THAT(changed("select", before, /*models=*/false), IsEmpty());
}

TEST_F(Inputs, WhatIsGoneIsRefusedOrUnknown) {
  const json::object before = describe("distill");
  fs::remove_all(folder_ / "teacher");
  EXPECT_THAT(test::error_of([&] { describe("distill"); }), HasSubstr("teacher"));
  FileHashes hashes(folder_.path());
  const Stage& stage = find_stage(pipeline_stages(), "distill");
  const json::object now = describe_inputs(stage, recipe_, nullptr, hashes, Absent::kUnknown);
  EXPECT_THAT(compare_inputs(stage, before, now), IsEmpty());
}

TEST_F(Inputs, ANewerSettingHadItsDefault) {
  json::object before = describe("distill");
  before.at("settings").as_object().erase("distill.clip");
  EXPECT_THAT(changed("distill", before), IsEmpty());
  recipe_.distill.clip = 2;
  EXPECT_THAT(changed("distill", before), ElementsAre("distill.clip = 1.0, which is 2.0 now"));
}

TEST_F(Inputs, ADamagedRecordIsNamed) {
  write_file(folder_ / "inputs.json", R"({"version": "1", "settings": {"a": 1}, "files": []})");
  EXPECT_THAT(test::error_of([&] { read_record(folder_ / "inputs.json"); }),
              HasSubstr("inputs.json: settings.a is no text"));
}

}  // namespace
}  // namespace halo
