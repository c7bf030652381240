// A run is what its inputs are: what changed is made anew or refused by name, in every command that
// uses a run folder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <chrono>
#include <thread>

#include "halo/base/files.h"
#include "halo/base/settings_io.h"
#include "halo/pipeline/run_folder.h"
#include "halo/pipeline/status.h"
#include "tests/places.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

using testing::HasSubstr;
using testing::Not;

fs::path copy_of_reference(const std::string& name) {
  const fs::path run = World::get().folder(name) / "run";
  fs::copy(World::get().reference(), run, fs::copy_options::recursive);
  return run;
}

Outcome convert_with(const fs::path& run, const Words& more) {
  Process process = convert(run, false);
  process.arguments.insert(process.arguments.end(), more.begin(), more.end());
  return run_halo(process);
}

Outcome expect_done(const Outcome& outcome) {
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return outcome;
}

// The world's recipe with its files elsewhere.
std::string recipe_at(const std::string& folder) {
  const std::string root = World::get().path("").string(), text = read_file(World::get().recipe());
  std::string out;
  size_t begin = 0;
  for (size_t at; (at = text.find(root, begin)) != std::string::npos; begin = at + root.size()) {
    out += text.substr(begin, at - begin) + folder + "/";
  }
  return out + text.substr(begin);
}

std::string weights(const fs::path& model) {
  return read_file(model / "model.safetensors");
}

std::string status_line(const fs::path& run) {
  return read_file(run / "STATUS");
}

// What a shell makes of the line between the first two backticks of a message.
Outcome paste_command_of(const std::string& message) {
  const size_t begin = message.find('`') + 1, end = message.find('`', begin);
  const std::string line = message.substr(begin, end - begin);
  EXPECT_TRUE(line.starts_with("halo ")) << message;
  const fs::path log = World::get().path("pasted.log");
  const std::string command =
      fmt::format("{}{} 2>{}", test::program().string(), line.substr(4), log.string());
  Outcome outcome;
  outcome.code = WEXITSTATUS(::system((command + " >/dev/null").c_str()));
  outcome.err = line + "\n" + read_file(log);
  return outcome;
}

// A run whose align was done again, with another result.
fs::path run_with_other_align(const std::string& name) {
  const fs::path run = copy_of_reference(name);
  expect_done(run_halo({"align", "--run", run.string(), "--set", "align.learning_rate=2e-2"}));
  return run;
}

TEST(Runs, AStageDoneAgainMakesTheRestStale) {
  const fs::path run = run_with_other_align("stale");
  EXPECT_EQ(status_line(run),
            "unfinished: next is select\nstale: model summary.json" +
                std::string(fs::exists(run / "report.html") ? " report.html\n" : "\n"));
  const Outcome status = expect_done(run_halo({"status", run.string()}));
  EXPECT_THAT(status.out, HasSubstr("not up to date: select: it was made with another student"));
  EXPECT_THAT(read_file(run / kResolvedRecipe), HasSubstr("learning_rate = 0.02"));
  // What uses the model says so.
  const std::string model = (run / "model").string();
  expect_error(run_halo({"export", model, "--out", run.string() + "-export"}), 1,
               {"is not the model of its run any more", "select", "halo convert"});
  EXPECT_THAT(run_halo({"generate", model, "The", "--max-tokens", "2"}).err,
              HasSubstr("is not the model of its run any more"));
  // A stage behind the stale one is refused, with a command that works.
  const Outcome refused = run_halo({"distill", "--run", run.string()});
  expect_error(refused, 1, {"select was made with another student", "--from select"});
  expect_done(paste_command_of(refused.err));
  EXPECT_EQ(status_line(run), "done\n");
  EXPECT_NE(weights(run / "model"), weights(World::get().reference() / "model"));
  const fs::path fresh = World::get().folder("fresh") / "run";
  expect_done(convert_with(fresh, {"--set", "align.learning_rate=2e-2"}));
  expect_same_record(run, fresh);
  EXPECT_EQ(run_halo({"export", model, "--out", run.string() + "-export"}).code, 0);
}

TEST(Runs, AResumeDoesAgainWhatIsStale) {
  const fs::path run = run_with_other_align("resumed");
  // The recipe as it was: align itself is refused, with the way back.
  const Outcome refused = run_halo(convert(run, true));
  expect_error(refused, 1, {"align was made with align.learning_rate = 0.02, which is 0.01 now"});
  expect_done(paste_command_of(refused.err));
  expect_same_record(run, World::get().reference());
  EXPECT_EQ(status_line(run), "done\n");
}

// Not even a checkpoint of an unfinished stage survives another student.
TEST(Runs, AnUnfinishedStageBeginsAnewFromAnotherStudent) {
  const fs::path run = World::get().folder("unfinished") / "run";
  EXPECT_EQ(run_halo(Process{{"convert", World::get().recipe().string(), "--run", run.string(),
                              "--set", "distill.checkpoint_every=1"},
                             "stage.before_result:5"})
                .signal,
            SIGKILL);
  ASSERT_TRUE(fs::exists(run / "distill" / "step-6"));
  const std::string resolved = (run / kResolvedRecipe).string();
  expect_done(run_halo({"align", "--run", run.string(), "--set", "align.learning_rate=2e-2"}));
  expect_done(run_halo({"select", "--run", run.string()}));
  const Outcome distill = expect_done(run_halo({"distill", "--run", run.string()}));
  EXPECT_THAT(distill.err, HasSubstr("distill: was made with another student"));
  EXPECT_THAT(distill.err, HasSubstr("begins anew"));
  expect_done(run_halo({"convert", resolved, "--run", run.string(), "--resume"}));
  const fs::path fresh = World::get().folder("fresh") / "run";
  expect_done(convert_with(fresh, {"--set", "align.learning_rate=2e-2"}));
  EXPECT_EQ(weights(run / "model"), weights(fresh / "model"));
}

TEST(Runs, ChangedFilesAreRefusedByName) {
  const World& world = World::get();
  const fs::path folder = world.folder("files"), run = folder / "run";
  for (const char* name : {"teacher", "train", "held-out"}) {
    fs::copy(world.path(name), folder / name, fs::copy_options::recursive);
  }
  write_file(folder / "recipe.toml", recipe_at(folder.string()));
  const Words words = {"convert", (folder / "recipe.toml").string(), "--run", run.string()};
  expect_done(run_halo(words));
  expect_same_record(run, world.reference());
  Words resume = words;
  resume.push_back("--resume");
  const auto expect_refused = [&](const fs::path& file, const std::string& stage,
                                  const std::string& what) {
    const std::string before = read_file(file);
    std::string after = before;
    after[after.size() - 1] ^= 1;  // in the payload
    write_file(file, after);
    const Outcome outcome = run_halo(resume);
    const Outcome status = run_halo({"status", run.string()});
    write_file(file, before);
    expect_error(outcome, 1, {stage + " was made with", what});
    EXPECT_THAT(status.out, HasSubstr("not up to date: " + stage));
  };
  expect_refused(folder / "teacher" / "model.safetensors", "transfer",
                 "another teacher (model.safetensors)");
  expect_refused(folder / "teacher" / "tokenizer.json", "transfer",
                 "another teacher (tokenizer.json)");
  expect_refused(fs::directory_iterator(folder / "train")->path(), "transfer", "other data.shards");
  expect_refused(fs::directory_iterator(folder / "held-out")->path(), "transfer",
                 "other eval.held_out");
  expect_done(run_halo(resume));
  expect_same_record(run, world.reference());
}

TEST(Runs, WhatOnlyALaterStageReadsMayChange) {
  const fs::path run = copy_of_reference("later");
  for (const char* stage : {"finetune", "scale"}) fs::remove_all(run / stage);
  const Words later = {"--resume", "--set", "finetune.learning_rate=2e-3"};
  expect_done(convert_with(run, later));
  const fs::path fresh = World::get().folder("fresh") / "run";
  expect_done(convert_with(fresh, {"--set", "finetune.learning_rate=2e-3"}));
  expect_same_record(run, fresh);
  EXPECT_EQ(read_file(run / kResolvedRecipe), read_file(fresh / kResolvedRecipe));
  EXPECT_NE(weights(run / "model"), weights(World::get().reference() / "model"));
}

TEST(Runs, ABranchStartsFromTheStagesBeforeIt) {
  const fs::path run = copy_of_reference("branched"), other = run.parent_path() / "other";
  const Outcome made =
      expect_done(run_halo({"branch", run.string(), "distill", "--run", other.string()}));
  EXPECT_EQ(status_line(other), "unfinished: next is distill\n");
  EXPECT_FALSE(fs::exists(other / "distill"));
  EXPECT_EQ(fs::hard_link_count(other / "select" / "step-0" / "model.safetensors"), 2u);
  expect_error(run_halo({"branch", run.string(), "distill", "--run", other.string()}), 1,
               {"not empty"});
  // What a stage that was taken was made with is not to be changed.
  expect_error(convert_with(other, {"--resume", "--set", "align.clip=0.5"}), 1,
               {"align was made with align.clip = 1.0, which is 0.5 now"});
  expect_done(convert_with(other, {"--resume", "--set", "distill.learning_rate=2e-3"}));
  const fs::path fresh = World::get().folder("fresh") / "run";
  expect_done(convert_with(fresh, {"--set", "distill.learning_rate=2e-3"}));
  expect_same_record(other, fresh);
  expect_same_record(run, World::get().reference());
  // The line that it prints, as it stands.
  fs::remove_all(other);
  run_halo({"branch", run.string(), "scale", "--run", other.string()});
  expect_done(paste_command_of("`" + made.out.substr(made.out.find('\n') + 1) + "`"));
  expect_same_record(other, World::get().reference());
}

TEST(Runs, ABranchOfWhatIsStaleOrUnfinishedIsRefused) {
  const fs::path run = run_with_other_align("stale-branch");
  const std::string other = (run.parent_path() / "other").string();
  expect_error(run_halo({"branch", run.string(), "distill", "--run", other}), 1,
               {"select was made with another student"});
  EXPECT_EQ(run_halo({"branch", run.string(), "select", "--run", other}).code, 0);
  fs::remove_all(run / "align");
  expect_error(run_halo({"branch", run.string(), "select", "--run", other + "2"}), 1,
               {"align is not finished"});
  EXPECT_FALSE(fs::exists(other + "2"));
}

TEST(Runs, FromAStageOn) {
  const fs::path run = copy_of_reference("from");
  expect_error(convert_with(run, {"--from", "distil"}), 1, {"did you mean 'distill'"});
  const Outcome outcome = expect_done(convert_with(run, {"--from", "select"}));
  EXPECT_THAT(outcome.err, HasSubstr("align: done before\n"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("\nalign: ")));
  EXPECT_THAT(outcome.err, HasSubstr("distill: "));
  expect_same_record(run, World::get().reference());
}

TEST(Runs, ASecondProcessIsRefused) {
  const fs::path run = World::get().folder("locked") / "run";
  Running first(convert(run, false));
  while (first.alive() && !fs::exists(run / "align" / "metrics.jsonl")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  expect_error(run_halo(convert(run, true)), 1, {"process ", "works in this folder"});
  expect_error(run_halo({"transfer", "--run", run.string()}), 1, {"works in this folder"});
  const json::value status = parse_json(run_halo({"status", run.string(), "--json"}).out, "status");
  EXPECT_EQ(status.at("state"), "running");
  EXPECT_THAT(std::string(status.at("process").as_string()), HasSubstr("process "));
  first.send(SIGKILL);
  EXPECT_EQ(first.wait().signal, SIGKILL);
  EXPECT_TRUE(fs::exists(run / "lock"));
  EXPECT_THAT(run_halo({"status", run.string()}).out, HasSubstr(": killed "));
  expect_done(run_halo(convert(run, true)));
  expect_same_record(run, World::get().reference());
  EXPECT_FALSE(fs::exists(run / "lock"));
}

TEST(Runs, StatusOfEveryEnd) {
  const fs::path run = copy_of_reference("status");
  const json::object done = run_status(run);
  EXPECT_EQ(done.at("state"), "done");
  EXPECT_FALSE(done.contains("stale"));
  ASSERT_EQ(done.at("stages").as_array().size(), kStages.size());
  const json::object& distill = done.at("stages").at(4).as_object();
  EXPECT_EQ(distill.at("stage"), "distill");
  EXPECT_EQ(distill.at("state"), "done");
  EXPECT_EQ(distill.at("step"), 6);
  EXPECT_EQ(distill.at("steps"), 6);
  EXPECT_EQ(distill.at("gate"), read_json(run / "distill" / "result.json").at("gate"));
  EXPECT_GT(done.at("disk_bytes").to_number<int64_t>(),
            distill.at("disk_bytes").to_number<int64_t>());

  fs::remove_all(run / "scale");
  EXPECT_EQ(convert_with(run, {"--resume", "--set", "gates.scale_needle=1.5"}).code, 4);
  const json::object failed = run_status(run);
  EXPECT_EQ(failed.at("state"), "failed");
  EXPECT_EQ(failed.at("stage"), "scale");
  EXPECT_THAT(std::string(failed.at("why").as_string()), HasSubstr("the gate is not passed"));
  EXPECT_EQ(failed.at("stages").at(7).at("state"), "failed");
  EXPECT_EQ(failed.at("stages").at(7).at("gate").at("limit"), 1.5);
  EXPECT_EQ(failed.at("stale").at("what"), "scale");
  EXPECT_THAT(run_halo({"status", run.string()}).out,
              HasSubstr("failed scale (stage 8 of 8)\n  the gate is not passed"));
  expect_error(run_halo({"status", World::get().path("").string()}), 1, {"is no run folder"});
}

// Every gate that a recipe can fail: the advice is pasted, and the run goes on.
TEST(Runs, AFailedGatesAdviceWorks) {
  const fs::path run = World::get().folder("it's a run") / "run";
  const Words strict = {"--set", "gates.align_explained_variance=0.99999",
                        "--set", "gates.select_ratio=1e-9",
                        "--set", "gates.distill_kl=1e-9",
                        "--set", "gates.finetune_loss_decrease=100",
                        "--set", "gates.on_policy_kl_decrease=100",
                        "--set", "gates.scale_needle=1.5"};
  Words failed;
  Outcome outcome = convert_with(run, strict);
  while (outcome.code == 4 && failed.size() < kStages.size()) {
    const std::string status = status_line(run);
    failed.push_back(status.substr(0, status.find(':')));
    outcome = paste_command_of(outcome.err.substr(outcome.err.find("the gate is not passed")));
    outcome.err.erase(0, outcome.err.find('\n') + 1);  // the command itself
  }
  // Both stages of mixers have one gate: what align asks for does for the other.
  EXPECT_THAT(failed, testing::ElementsAre("failed align", "failed select", "failed distill",
                                           "failed finetune", "failed on-policy", "failed scale"));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(weights(run / "model"), weights(World::get().reference() / "model"));
}

TEST(Runs, GoesOnFromAnyFolderAndWhenMoved) {
  const World& world = World::get();
  const fs::path folder = world.folder("moved"), first = folder / "first";
  fs::create_directories(first);
  // As the demo's, relative.
  write_file(first / "recipe.toml", recipe_at("../.."));
  Process begin{{"convert", "recipe.toml", "--run", "run"}, "train.mid_step:8"};
  begin.directory = first;
  EXPECT_EQ(run_halo(begin).signal, SIGKILL);
  fs::create_directories(folder / "second" / "deeper");
  fs::rename(first / "run", folder / "second" / "run");
  Process go_on{{"convert", "../run/config.resolved.toml", "--run", "../run", "--resume"}};
  go_on.directory = folder / "second" / "deeper";
  expect_done(run_halo(go_on));
  expect_same_record(folder / "second" / "run", world.reference());
}

// A folder of the version before: no records, one number of seconds, a recipe as it was typed.
TEST(Runs, AFolderWithoutRecordsGoesOn) {
  const fs::path run = copy_of_reference("old");
  for (const std::string& stage : kStages) fs::remove(run / stage / "inputs.json");
  fs::remove(run / "inputs.json");
  write_file(run / "seconds.json", R"({"seconds": 12.5})");
  fs::remove_all(run / "scale");
  expect_error(convert_with(run, {"--resume", "--set", "distill.clip=0.5"}), 1,
               {"the run began with distill.clip = 1.0, the recipe has 0.5"});
  const Outcome outcome = expect_done(run_halo(convert(run, true)));
  EXPECT_THAT(outcome.err, HasSubstr("kept no record of what stages are made of"));
  expect_same_record(run, World::get().reference());
  EXPECT_GT(read_json(run / "summary.json").at("seconds").to_number<double>(), 12.5);
  EXPECT_THAT(run_halo(convert(run, true)).err, Not(HasSubstr("kept no record")));
  expect_error(convert_with(run, {"--resume", "--set", "distill.clip=0.5"}), 1,
               {"distill was made with distill.clip = 1.0"});
}

TEST(Runs, AnotherVersionIsSaid) {
  const fs::path run = copy_of_reference("version");
  json::value record = read_json(run / "align" / "inputs.json");
  record.at("version") = "0.0.9";
  write_json(run / "align" / "inputs.json", record);
  EXPECT_THAT(expect_done(run_halo(convert(run, true))).err,
              HasSubstr("made by halo 0.0.9 (align)"));
  EXPECT_THAT(run_halo({"status", run.string()}).out, HasSubstr("made by halo 0.0.9 (align)"));
}

// Another value within its bounds.
void change(const Setting& setting) {
  if (auto* const* value = std::get_if<bool*>(&setting.value)) **value = !**value;
  if (auto* const* value = std::get_if<int64_t*>(&setting.value)) {
    **value += double(**value) < setting.about.max ? 1 : -1;
  }
  if (auto* const* value = std::get_if<double*>(&setting.value)) {
    **value = (**value + setting.about.min) / 2 + (**value == setting.about.min ? 0.1 : 0);
  }
  if (auto* const* value = std::get_if<std::vector<int64_t>*>(&setting.value)) {
    (*value)->push_back(1);
  }
  if (auto* const* value = std::get_if<std::vector<double>*>(&setting.value)) {
    (*value)->push_back(3);
  }
  if (const auto* choice = std::get_if<Choice>(&setting.value)) {
    choice->set((choice->get() + 1) % choice->words.size());
  }
}

// What a stage's record leaves out changes nothing in its result: all of it is changed at once.
TEST(Runs, AStageReadsNothingButWhatItRecords) {
  const Recipe recipe = read_recipe(World::get().recipe(), {});
  const fs::path reference = World::get().reference();
  for (const Stage& stage : pipeline_stages()) {
    SCOPED_TRACE(stage.name);
    Recipe other = recipe;
    const Settings all = settings_of(other);
    int64_t changed = 0;
    for (const Setting& setting : all.all()) {
      const bool of_length = setting.key.ends_with(".sequence_length") ||
                             setting.key.ends_with("_attention.tokens") ||
                             setting.key == "finetune.tokens" || setting.key == "on_policy.tokens";
      if (reads(stage, setting.key) || names_files(setting.key) ||
          setting.about.effect == Effect::kNone || (stage.reads_training_length && of_length)) {
        continue;
      }
      change(setting);
      ++changed;
    }
    EXPECT_GT(changed, 50);
    const StageContext context(context_settings(other));
    StageArgs args = args_in_run(pipeline_stages(), stage, recipe, reference);
    args.out = World::get().folder("reads") / stage.name;
    fs::create_directories(args.out);
    stage.run(other, context, args);
    const auto got = record(args.out), expected = record(reference / stage.name);
    EXPECT_EQ(got, expected);
    EXPECT_EQ(weights(stage_model(args.out)), weights(stage_model(reference / stage.name)));
    EXPECT_EQ(read_file(stage_model(args.out) / "config.json"),
              read_file(stage_model(reference / stage.name) / "config.json"));
  }
}

// Outside a run folder too a checkpoint is what it was made of.
TEST(Runs, AStageByHandIsRefusedWithOtherInputs) {
  const fs::path out = World::get().folder("by-hand") / "out";
  const auto distill = [&](const Words& more, const std::string& crash_at = "",
                           const std::string& student = "select/step-0") {
    Words words = {"distill",
                   "--recipe",
                   World::get().recipe().string(),
                   "--student",
                   (World::get().reference() / student).string(),
                   "--out",
                   out.string()};
    words.insert(words.end(), more.begin(), more.end());
    return run_halo(Process{words, crash_at});
  };
  // Nothing is trained yet: other settings may begin.
  EXPECT_EQ(distill({"--set", "distill.clip=0.5"}, "train.mid_step:1").signal, SIGKILL);
  EXPECT_EQ(distill({}, "train.mid_step:3").signal, SIGKILL);
  ASSERT_TRUE(fs::exists(out / "step-2"));
  expect_error(distill({"--set", "run.compute=bfloat16"}), 1,
               {"run.compute = \"float32\", which is \"bfloat16\" now"});
  expect_error(distill({}, "", "align/step-6"), 1, {"another student"});
  expect_done(distill({}));
  EXPECT_EQ(weights(out / "step-6"), weights(World::get().reference() / "distill" / "step-6"));
}

}  // namespace
}  // namespace halo::system_test
