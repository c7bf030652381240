#include "halo/pipeline/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "halo/base/files.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::HasSubstr;

std::string status_of(const fs::path& run) {
  return read_file(run / "STATUS");
}

TEST(Status, SaysHowAStageEnded) {
  const test::Folder run;
  std::string under_way;
  with_status(run.path(), "align", [&] { under_way = status_of(run.path()); });
  EXPECT_EQ(under_way, "running align\n");
  const auto after = [&](const auto& error) {
    EXPECT_ANY_THROW(with_status(run.path(), "align", [&] { throw error; }));
    return status_of(run.path());
  };
  EXPECT_EQ(after(Stopped("align: stopped at step 3")), "stopped align: stopped at step 3\n");
  EXPECT_EQ(after(GateFailed("align: the gate is not passed\nat all")),
            "failed align: the gate is not passed\n");
  EXPECT_EQ(after(std::bad_alloc()), "failed align: out of memory\n");
}

TEST(Status, ASignalLeavesStopped) {
  const test::Folder run;
  mark_stopped(run.path());  // nothing is there
  EXPECT_FALSE(fs::exists(run / "STATUS"));
  write_status(run.path(), "done", false, false);
  mark_stopped(run.path());
  EXPECT_EQ(status_of(run.path()), "done\n");
  fs::create_directories(run / "model");
  write_status(run.path(), "running align", true, true);
  mark_stopped(run.path());
  EXPECT_EQ(status_of(run.path()), "stopped align: by a signal\nstale: model\n");
}

TEST(Status, NamesWhatIsStale) {
  const test::Folder run;
  fs::create_directories(run / "model");
  write_file(run / "summary.json", "{}");
  with_status(run.path(), "align", [] {});
  EXPECT_EQ(status_of(run.path()), "running align\nstale: model summary.json\n");
  with_status(run.path(), "eval", [] {});
  EXPECT_EQ(status_of(run.path()), "running eval\nstale: summary.json\n");
  write_status(run.path(), "done", false, false);
  EXPECT_EQ(status_of(run.path()), "done\n");
}

TEST(ShellLine, QuotesWhatAShellWouldRead) {
  EXPECT_EQ(shell_line({"halo", "--set", "select.layers=[1, 2]", "", "it's", "a/b_c.toml"}),
            "halo --set 'select.layers=[1, 2]' '' 'it'\\''s' a/b_c.toml");
}

// A new text setting is a decision: a path, which a run keeps absolute and compares by what the
// file holds, or a word.
TEST(RunRecipe, EveryTextIsAPathOrAWord) {
  Recipe recipe;
  const Settings all = settings_of(recipe);
  for (const Setting& setting : all.all()) {
    const bool text = std::holds_alternative<std::string*>(setting.value) ||
                      std::holds_alternative<std::vector<std::string>*>(setting.value);
    const std::set<std::string> words = {"data.document_end", "select.recall", "select.commonsense",
                                         "scale.tasks"};
    EXPECT_EQ(names_files(setting.key), text && !words.contains(setting.key)) << setting.key;
  }
}

TEST(RunRecipe, PathsGoWithTheFolder) {
  const test::Folder folder;
  const fs::path run = folder / "run";
  fs::create_directories(run / "teacher");
  Recipe recipe;
  recipe.teacher = (run / "teacher").string();
  recipe.data.shards = {"some/train-*.halotok", (run / "shards" / "*.halotok").string()};
  recipe.eval.held_out = (folder / "held.halotok").string();
  write_run_recipe(run, with_absolute_paths(recipe));
  fs::create_directories(run / "shards");
  fs::rename(run, folder / "moved");
  const Recipe moved = read_recipe(folder / "moved" / kResolvedRecipe, {"align.clip=2"});
  EXPECT_EQ(moved.teacher, (folder / "moved" / "teacher").string());
  EXPECT_EQ(moved.data.shards[0], (fs::current_path() / "some/train-*.halotok").string());
  EXPECT_EQ(moved.data.shards[1], (folder / "moved" / "shards" / "*.halotok").string());
  EXPECT_EQ(moved.eval.held_out, recipe.eval.held_out);
  EXPECT_EQ(moved.align.clip, 2);
  EXPECT_EQ(moved.data.haystack, std::vector<std::string>());
}

}  // namespace
}  // namespace halo
