#include "halo/report/comparison.h"

#include <gmock/gmock.h>

#include "halo/report/report_testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

class ComparisonTest : public test::ReportTest {
 protected:
  // `run_` is the one, `other` another.
  void SetUp() override {
    write_all();
    write_text("config.resolved.toml",
               "teacher = \"t\"\n[run]\nseed = 1\n[distill]\ntokens = 100\nlengths = [1, 2]\n");
    for (const char* name : {"summary.json", "env.json"}) {
      fs::create_directories(other_);
      fs::copy_file(run_ / name, other_ / name);
    }
    json::object summary = read_json(other_ / "summary.json").as_object();
    json::object& student = summary["student"].as_object();
    student["loss"] = 2.0018;
    student["mixer_types"] = {"attn", "attn", "lightning-attn", "lightning-attn"};
    write_file(other_ / "summary.json", format_json(summary));
    write_file(other_ / "config.resolved.toml",
               "teacher = \"t\"\n[run]\nseed = 2\n[distill]\ntokens = 100\nlengths = [1, 3]\n");
    fs::create_directories(other_ / "distill");
    write_file(other_ / "distill/result.json",
               format_json(json::object{{"gate", test::gate("held-out KL", 0.3, true)}}));
    write_file(other_ / "distill/metrics.jsonl", "{\"step\":1,\"tokens\":50,\"loss\":1.5}\n");
  }

  const fs::path other_ = run_ / "other<run>";
};

TEST_F(ComparisonTest, ShowsFiguresOfBothAndWhatDiffers) {
  const std::string html = comparison_page(run_, other_);
  for (const char* id : {"figures", "needles", "stages", "training", "settings"}) {
    EXPECT_THAT(html, HasSubstr(fmt::format("<section id=\"{}\">", id)));
  }
  for (const char* text :
       {"<td>2.1018</td><td>2.0018</td><td>-0.1</td>", "<td>0.375</td><td>0.375</td><td>0</td>",
        "1 of 4 layers keep attention", "2 of 4 layers keep attention",
        "✗</span> 0.7531 (at most 0.5)", "✓</span> 0.3 (at most 0.5)",
        "<td>run.seed</td><td><code>1</code></td><td><code>2</code></td>",
        "<td>distill.lengths</td>", "</svg>teacher</span>", "other&lt;run&gt;"}) {
    EXPECT_THAT(html, HasSubstr(text));
  }
  // The teacher is the same, and its figures are equal.
  for (const char* text : {"distill.tokens", "<td>teacher: ", "teacher of", "<run>"})
    EXPECT_THAT(html, Not(HasSubstr(text)));
}

TEST_F(ComparisonTest, ShowsTasksOfBothAndTheirTeacherOnce) {
  const auto tasks = [&](double of_student) {
    const auto figures = [](double value) {
      return json::object{{"drop", {{"f1", {{"value", value}, {"stderr", 0.125}, {"n", 16}}}}}};
    };
    return format_json(json::object{{"models",
                                     {{{"model", "the-teacher"}, {"tasks", figures(0.5)}},
                                      {{"model", "student"}, {"tasks", figures(of_student)}}}}});
  };
  write_text("tasks.json", tasks(0.25));
  write_file(other_ / "tasks.json", tasks(0.375));
  const std::string html = comparison_page(run_, other_);
  for (const char* text : {"<section id=\"tasks\">", "<th>the-teacher</th>", ": student</th>",
                           "0.250 ± 0.125", "0.375 ± 0.125"}) {
    EXPECT_THAT(html, HasSubstr(text));
  }
  const size_t first = html.find("the-teacher");
  EXPECT_EQ(html.find("the-teacher", first + 1), std::string::npos);
}

TEST_F(ComparisonTest, TakesRunsThatAreNotFinished) {
  fs::remove(other_ / "summary.json");
  const std::string html = comparison_page(other_, run_);
  EXPECT_THAT(html, HasSubstr("<td>–</td><td>2.1018</td><td>–</td>"));
  EXPECT_THAT(html, HasSubstr("Stopped in"));
  EXPECT_THAT(html, HasSubstr("</html>"));
}

TEST_F(ComparisonTest, ARunWithItselfDiffersInNothing) {
  EXPECT_THAT(comparison_page(run_, run_), HasSubstr("Recipes and machines are the same."));
}

TEST_F(ComparisonTest, NamesWhatItCannotRead) {
  write_text("config.resolved.toml", "a = 1\nb = \n");
  EXPECT_THAT(test::error_of([&] { comparison_page(run_, other_); }),
              HasSubstr("config.resolved.toml:2: "));
  EXPECT_THAT(test::error_of([&] { comparison_page(run_, run_ / "nowhere"); }),
              HasSubstr("nowhere: there is no such run folder"));
}

TEST(FlatToml, HasEveryKeyOnce) {
  const auto flat = flat_toml("a = 1\n[b]\nc = \"x\"\n[b.d]\ne = [1, 2]\nf = 0.5\n", "f.toml");
  EXPECT_THAT(flat,
              ::testing::ElementsAre(std::pair<const std::string, std::string>("a", "1"),
                                     std::pair<const std::string, std::string>("b.c", "'x'"),
                                     std::pair<const std::string, std::string>("b.d.e", "[ 1, 2 ]"),
                                     std::pair<const std::string, std::string>("b.d.f", "0.5")));
}

}  // namespace
}  // namespace halo
