// halo report: the page of a run, at its end and before, and of two.
#include <gmock/gmock.h>

#include "halo/base/files.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

using ::testing::HasSubstr;

TEST(Report, IsWrittenAgain) {
  const fs::path run = World::get().folder("report") / "reference";
  fs::copy(World::get().reference(), run, fs::copy_options::recursive);
  const std::string before = read_file(run / "report.html");
  fs::remove(run / "report.html");
  EXPECT_EQ(output_of({"report", run.string()}), run.string() + "/report.html\n");
  EXPECT_EQ(read_file(run / "report.html"), before);
  expect_error(run_halo({"report", "/nowhere"}), 1, {"/nowhere"});
  expect_error(run_halo({"report", run.parent_path().string()}), 1, {"nothing of a run"});
}

TEST(Report, OfTwoRunsAndOfOneThatIsNotFinished) {
  const fs::path folder = World::get().folder("reports");
  const fs::path whole = World::get().reference(), part = folder / "part";
  fs::copy(whole, part, fs::copy_options::recursive);
  for (const char* name :
       {"summary.json", "report.html", "model", "scale", "on-policy", "finetune/result.json"})
    fs::remove_all(part / name);
  write_file(part / "STATUS", "running finetune\n");
  EXPECT_EQ(output_of({"report", part.string(), "--out", (folder / "part.html").string()}),
            (folder / "part.html").string() + "\n");
  const std::string page = read_file(folder / "part.html");
  EXPECT_THAT(page, HasSubstr("Stopped in stage 6 of 8, finetune, step 4 of 4, loss "));
  EXPECT_FALSE(fs::exists(part / "report.html"));

  const fs::path two = folder / "two.html";
  output_of({"report", whole.string(), part.string(), "--out", two.string()});
  const std::string compared = read_file(two);
  EXPECT_THAT(compared, HasSubstr("<title>reference and part</title>"));
  EXPECT_THAT(compared, HasSubstr("Recipes and machines are the same."));
  expect_error(run_halo({"report", whole.string(), part.string()}), 2, {"--out FILE"});
}

}  // namespace
}  // namespace halo::system_test
