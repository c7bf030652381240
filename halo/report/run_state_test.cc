// The page of runs that are not finished, and what it says of them.
#include "halo/report/run_state.h"

#include <gmock/gmock.h>

#include "halo/base/folder_lock.h"
#include "halo/report/report_testing.h"

namespace halo {
namespace {

using test::gate;
using test::ReportTest;
namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class RunStateTest : public ReportTest {
 protected:
  void SetUp() override {
    json::array stages;
    for (const auto& [name, steps] : {std::pair{"transfer", 0}, {"align", 60}, {"distill", 80}}) {
      stages.push_back(json::object{{"name", name}, {"steps", steps}});
    }
    write("env.json", json::object{{"command", "halo convert r.toml --run " + run_.string()},
                                   {"device", "NVIDIA H200"},
                                   {"stages", stages}});
    write_text("config.resolved.toml", "teacher = \"t\"\n");
  }

  void finish(const std::string& stage) const {
    write(stage + "/result.json", json::object{{"gate", gate("a figure", 0.4, true)}});
  }

  RunState state() const { return run_state(read_run(run_)); }
};

TEST_F(RunStateTest, RunningSaysStageAndStep) {
  const FolderLock lock(run_);
  write_text("STATUS", "running align\n");
  finish("transfer");
  write_training("align", true);
  const std::string html = page();
  EXPECT_EQ(state().kind, RunState::Kind::kRunning);
  EXPECT_THAT(html, HasSubstr("Running: stage 2 of 3, align, step 40 of 60, loss 0.05"));
  EXPECT_THAT(html, HasSubstr("Last written at 2"));
  EXPECT_THAT(html, HasSubstr("halo report " + run_.string()));
  EXPECT_THAT(html, Not(HasSubstr("--resume")));
  EXPECT_THAT(html, HasSubstr("on NVIDIA H200"));
  // Every stage is listed, those to come too; the curves so far come first.
  EXPECT_THAT(html, HasSubstr("<td>running</td>"));
  EXPECT_THAT(html, HasSubstr("<td>not run</td>"));
  EXPECT_LT(html.find("id=\"training\""), html.find("id=\"alignment\""));
  EXPECT_THAT(html, Not(HasSubstr("id=\"held-out\"")));
  EXPECT_THAT(html, Not(HasSubstr("class=\"tiles\"")));
}

TEST_F(RunStateTest, KilledIsStopped) {
  write_text("STATUS", "running align\n");
  finish("transfer");
  write_training("align", true);
  const std::string html = page();
  EXPECT_EQ(state().kind, RunState::Kind::kStopped);
  EXPECT_THAT(html, HasSubstr("Stopped in stage 2 of 3, align, step 40 of 60, loss 0.05"));
  EXPECT_THAT(html, HasSubstr("it was killed. Last written at 2"));
  EXPECT_THAT(html, HasSubstr("--run " + run_.string() + " --resume"));
}

TEST_F(RunStateTest, BeforeAnyStepAndInTheEvaluation) {
  const FolderLock lock(run_);
  write_text("STATUS", "running transfer\n");
  EXPECT_THAT(page(), HasSubstr("<b>Running: stage 1 of 3, transfer</b>"));
  for (const char* stage : {"transfer", "align", "distill"}) finish(stage);
  write_text("STATUS", "running eval\n");
  EXPECT_THAT(page(), HasSubstr("Running: the evaluation, after 3 stages"));
}

TEST_F(RunStateTest, FailedSaysFigureBoundAndACommand) {
  finish("transfer");
  write("distill/failed.json", json::object{{"gate", gate("held-out KL", 0.75313, false)}});
  write_text(
      "STATUS",
      "failed distill: the gate is not passed; or take it: `halo convert r --set gates.x=1`\n");
  std::string html = page();
  EXPECT_EQ(state().kind, RunState::Kind::kFailed);
  EXPECT_EQ(state().stage, "distill");
  EXPECT_THAT(state().reason, StartsWith("the gate is not passed; "));
  EXPECT_THAT(html, HasSubstr("Failed in stage 3 of 3, distill: held-out KL is 0.7531, must be at "
                              "most 0.5</b>"));
  EXPECT_THAT(html, HasSubstr("<pre>halo convert r --set gates.x=1</pre>"));
  EXPECT_THAT(html, HasSubstr("✗ failed"));
  // Without one it says where the limit is.
  write_text("STATUS", "failed distill\n");
  html = page();
  EXPECT_THAT(html, HasSubstr("(gates.* in the recipe)"));
  EXPECT_THAT(html, HasSubstr(run_.string() + " --resume</pre>"));
}

TEST_F(RunStateTest, AnErrorIsEscaped) {
  write_text("STATUS", "failed align: no space in <here>\nmore\n");
  EXPECT_THAT(page(),
              HasSubstr("Failed in stage 2 of 3, align</b><p>no space in &lt;here&gt;</p>"));
}

TEST_F(RunStateTest, StoppedDoneAndUnknownWords) {
  write_text("STATUS", "stopped align\n");
  EXPECT_THAT(page(), HasSubstr("Stopped in stage 2 of 3, align"));
  for (const char* stage : {"transfer", "align", "distill"}) finish(stage);
  write_text("STATUS", "done\n");
  EXPECT_THAT(page(), HasSubstr("Finished: all 3 stages passed their gates"));
  write_text("STATUS", "unfinished & <old>\nstale: model <b>\n");
  EXPECT_THAT(page(), HasSubstr("<b>unfinished &amp; &lt;old&gt;</b>"));
  EXPECT_THAT(page(), HasSubstr("done again: model &lt;b&gt;."));
}

// Folders of earlier versions, whose STATUS goes on saying "running".
TEST_F(RunStateTest, AFailureAfterTheStageBeganIsOne) {
  const FolderLock lock(run_);
  write("align/failed.json", json::object{{"gate", gate("f", 0.7, false)}});
  write_text("STATUS", "running align\n");
  const auto now = fs::file_time_type::clock::now();
  fs::last_write_time(run_ / "STATUS", now);
  fs::last_write_time(run_ / "align/failed.json", now - std::chrono::seconds(5));
  EXPECT_EQ(state().kind, RunState::Kind::kRunning);  // it runs again
  fs::last_write_time(run_ / "align/failed.json", now + std::chrono::seconds(5));
  EXPECT_EQ(state().kind, RunState::Kind::kFailed);
}

TEST_F(RunStateTest, TimesOfStagesAddUp) {
  finish("transfer");
  write("seconds.json", json::object{{"transfer", 10.5}, {"align", 50}});
  EXPECT_THAT(page(), HasSubstr("<b>1 min 1 s</b>"));
  write("seconds.json", json::object{{"seconds", 7200}});  // of earlier versions
  EXPECT_THAT(page(), HasSubstr("<b>2 h 0 min</b>"));
}

TEST_F(RunStateTest, WithoutStatusItGoesByTheFiles) {
  finish("transfer");
  EXPECT_EQ(state().kind, RunState::Kind::kStopped);
  EXPECT_EQ(state().stage, "align");
  write("align/failed.json", json::object{{"gate", gate("f", 0.7, false)}});
  EXPECT_EQ(state().kind, RunState::Kind::kFailed);
  write_summary();
  EXPECT_EQ(state().kind, RunState::Kind::kDone);
}

// As selected, before the evaluation says it.
TEST_F(RunStateTest, LayersShowOnceTheyAreChosen) {
  write("align/result.json", json::object{{"explained_variance", {0.9, 0.8, 0.7, 0.9}}});
  write("select/selection.json", json::object{{"rule", "joint"}, {"layers", {2}}});
  EXPECT_THAT(page(), HasSubstr("1 of 4 keep attention"));
}

}  // namespace
}  // namespace halo
