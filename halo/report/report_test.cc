// The page of a run folder that the test writes as the stages would.
#include "halo/report/report.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "halo/base/files.h"
#include "halo/report/report_testing.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

using test::model_figures;
using test::ReportTest;

TEST_F(ReportTest, HasEverySection) {
  write_all();
  const std::string html = page();
  for (const char* id : {"needles", "cost", "continuations", "held-out", "stages", "selection",
                         "scale", "alignment", "training", "provenance"}) {
    EXPECT_THAT(html, HasSubstr(fmt::format("<section id=\"{}\">", id)));
    EXPECT_THAT(html, HasSubstr(fmt::format("<a href=\"#{}\">", id)));
  }
  for (const char* text :
       {"Needle accuracy by length", ">depth<", "Loss by position", "bits per byte",
        "Sets of kept layers", "Alignment error of each layer", "Explained variance of each layer",
        "Gradient norm", "training length", "student, no logit scale", "log₂ axis",
        "Memory a token", "the text itself"}) {
    EXPECT_THAT(html, HasSubstr(text));
  }
}

TEST_F(ReportTest, ShowsTheFigures) {
  write_all();
  const std::string html = page();
  for (const char* text :
       {"2.1018 ± 0.0111",
        "1.9732 ± 0.0111",
        "0.1784 ± 0.0031",
        "(+0.129)",
        "201,344",
        "0.375 ± 0.012",
        "0.125 ± 0.012",
        "4,096 (8×)",
        "11 min 23 s",
        "141 GFLOP/s",
        "12,288",
        "-0.321 ± 0.050",
        "0.4567 ± 0.0200",
        "0.877 ± 0.020",
        "a = 500 (chosen)",
        "1 of 4 keep attention",
        "logit scale a = 500",
        "0.9123",
        "0.7531",
        "✗ failed",
        "✓ passed",
        "40 steps, 4,000 tokens",
        "of training, 1% of that time waiting for batches, median 2,222 tokens",
        "1 updates skipped, resumed 1 times",
        "4.00 MiB",  // 4,096 tokens of the student: 1,024 bytes each and the states
        "16.0 MiB",  // of the teacher
        "3.5 ms",
        "00112233445566778899aabbccddeeff"}) {
    EXPECT_THAT(html, HasSubstr(text));
  }
  EXPECT_THAT(html, HasSubstr("search half of the held-out text: most needles, then text."));
  EXPECT_THAT(html, HasSubstr("needles found, beyond the training length"));
}

TEST_F(ReportTest, EscapesHostileText) {
  write_all();
  const std::string html = page();
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"));
  EXPECT_THAT(html, HasSubstr("a CPU &amp; more"));
  EXPECT_THAT(html, HasSubstr("&#34;&lt;/pre&gt;&lt;script&gt;&#34;"));
  EXPECT_THAT(html, HasSubstr("a &lt;b&gt;warning&lt;/b&gt;"));
  EXPECT_THAT(html, HasSubstr("It was &lt;i&gt;late&lt;/i&gt;"));
  EXPECT_THAT(html, HasSubstr("&lt;/p&gt;&lt;script&gt;"));
}

TEST_F(ReportTest, AsksTheNetworkForNothing) {
  write_all();
  const std::string html = page();
  for (const char* text : {"http:", "https:", "src=", "@import", "url(", "<link"}) {
    EXPECT_THAT(html, Not(HasSubstr(text)));
  }
}

TEST_F(ReportTest, MissingNumbersAreGaps) {
  write_all();
  const std::string html = page();
  for (const char* text : {" nan", "\"nan", ">nan", " inf", "\"inf", ">null"})
    EXPECT_THAT(html, Not(HasSubstr(text)));
  // The loss of step 20 is null, so its line goes on after it with a new stroke.
  const size_t line = html.find("class=\"line\" d=\"M", html.find("id=\"training\""));
  ASSERT_NE(line, std::string::npos);
  const std::string path = html.substr(line, html.find("/>", line) - line);
  EXPECT_EQ(std::ranges::count(path, 'M'), 2);
}

TEST_F(ReportTest, SummaryAloneIsEnough) {
  write("summary.json", json::object{});
  EXPECT_THAT(page(), HasSubstr("</html>"));
  write("summary.json", json::object{{"training_length", 512}, {"teacher", model_figures(1.9732)}});
  const std::string html = page();
  EXPECT_THAT(html, HasSubstr("Held-out loss of the teacher"));
  EXPECT_THAT(html, Not(HasSubstr("id=\"training\"")));
  EXPECT_THAT(html, Not(HasSubstr("id=\"scale\"")));
}

TEST_F(ReportTest, NamesADamagedFile) {
  EXPECT_THAT(error(), HasSubstr("nothing of a run is in this folder"));
  write_text("summary.json", "{\"training_length\": 512,");
  EXPECT_THAT(error(), HasSubstr((run_ / "summary.json").string()));
  write_text("summary.json", "[]");
  EXPECT_THAT(error(), HasSubstr("summary.json: expected a JSON object"));
  write("summary.json", json::object{{"teacher", {{"loss", "low"}}}});
  EXPECT_THAT(error(), HasSubstr("summary.json: key 'loss' must be a number"));
  write("summary.json", json::object{{"teacher", {{"needle", {{"12x", json::object{}}}}}}});
  EXPECT_THAT(error(), HasSubstr("summary.json: '12x' is not a length in tokens"));
  write_summary();
  write_text("align/metrics.jsonl", "{\"step\":1}\n{\"step\":\n{\"step\":3}\n");
  EXPECT_THAT(error(), HasSubstr((run_ / "align" / "metrics.jsonl").string()));
}

TEST_F(ReportTest, DrawsScoresOfASweep) {
  write_summary();
  json::array candidates;
  for (int layer = 0; layer < 3; ++layer) {
    candidates.push_back({{"layers", {layer}},
                          {"kl", 0.1 * (layer + 1)},
                          {"kl_stderr", 0.02},
                          {"needle_logprob", -1.0},
                          {"needle_logprob_stderr", 0.1},
                          {"swapped", true}});
  }
  write("select/selection.json", json::object{{"rule", "kl"},
                                              {"layers", {2}},
                                              {"scores", {0.1, 0.2, 0.3}},
                                              {"frequency", {0.0, 0.1, 0.9}},
                                              {"candidates", candidates}});
  const std::string html = page();
  EXPECT_THAT(html, HasSubstr("Score of each layer, swapped alone, by the rule &#39;kl&#39;"));
  EXPECT_THAT(html, HasSubstr("<title>2: 0.3000 ± 0.0200</title>"));
  EXPECT_THAT(html, HasSubstr("The teacher with one layer swapped"));
}

TEST_F(ReportTest, ShowsASweepOverTasks) {
  write_summary();
  const json::object task{{"name", "squad_v1"},     {"kind", "recall"},
                          {"teacher", 0.5},         {"items", 20},
                          {"teacher_stderr", 0.25}, {"swapped", {0.125, 0.75}}};
  const json::object cost{{"flops", 5},
                          {"flops_of_whole_evaluations", 10},
                          {"seconds", 6},
                          {"seconds_of_whole_evaluations", 10}};
  write("select/selection.json",
        json::object{{"rule", "recall-ratio"},
                     {"layers", {1}},
                     {"scores", {0.1, 50}},
                     {"frequency", {0.0, 1.0}},
                     {"candidates", json::array{}},
                     {"sweep", {{"tasks", json::array{task}}, {"cost", cost}}}});
  const std::string html = page();
  for (const char* text : {"squad_v1 (recall)", "0.500 ± 0.250", "0.125", "0.750",
                           "0.50 of the FLOPs and 0.60 of the time"}) {
    EXPECT_THAT(html, HasSubstr(text));
  }
}

TEST_F(ReportTest, ShowsTasksOfModelsSideBySide) {
  write_summary();
  const auto figure = [](double value) {
    return json::object{{"value", value}, {"stderr", 0.125}, {"n", 16}};
  };
  json::object second = figure(0.5);
  second["difference"] = -0.25;
  second["difference_stderr"] = 0.125;
  const json::object ruler{{"4096", figure(0.875)},
                           {"16384", figure(0.625)},
                           {"4096@0.5", figure(0.3125)},
                           {"4096@1", figure(0.6875)}};
  write("tasks.json",
        json::object{{"models",
                      {{{"model", "teacher<b>"},
                        {"tasks", {{"arc_easy", {{"acc", figure(0.75)}}}, {"ruler_vt", ruler}}}},
                       {{"model", "student"}, {"tasks", {{"arc_easy", {{"acc", second}}}}}}}}});
  const std::string html = page();
  for (const char* text :
       {"<section id=\"tasks\">", "teacher&lt;b&gt;", "0.750 ± 0.125", "-0.250 ± 0.125", "16K",
        "0.625 ± 0.125", "<th>ruler_vt, 4096 tokens</th><th>0.5</th><th>1</th>",
        "<td>0.312 ± 0.125</td><td>0.688 ± 0.125</td>"}) {
    EXPECT_THAT(html, HasSubstr(text));
  }
}

TEST_F(ReportTest, ShowsWhatTheModelsWrote) {
  write_summary();
  const json::object figures{{"drop", {{"f1", {{"value", 0.5}, {"stderr", 0.1}, {"n", 9}}}}}};
  const json::object model{{"model", "t"}, {"tasks", figures}};
  write("tasks.json", json::object{{"models", json::array{model}}});
  std::string lines = "{\"model\":\"t\",\"task\":\"piqa\",\"id\":\"0\",\"choice\":1}\n";
  for (const char* model : {"t", "s"}) {
    for (int i = 0; i < 4; ++i) {
      lines += fmt::format(
          "{{\"model\":\"{0}\",\"task\":\"drop\",\"id\":\"item {1}\",\"answer\":\"{0} wrote "
          "<{1}>\","
          "\"answers\":[\"one\",\"two\"]}}\n",
          model, i);
    }
  }
  write_text("task-samples.jsonl", lines);
  const std::string html = page();
  EXPECT_THAT(html, HasSubstr("<td>item 2</td><td>one / two</td><td>t wrote &lt;2&gt;</td>"
                              "<td>s wrote &lt;2&gt;</td>"));
  EXPECT_THAT(html, Not(HasSubstr("item 3")));
  write_text("task-samples.jsonl", "[]\n");
  EXPECT_THAT(test::error_of([&] { page(); }), HasSubstr("task-samples.jsonl"));
}

TEST_F(ReportTest, LongRunsStaySmall) {
  write_summary();
  std::string lines;
  for (int step = 1; step <= 20'000; ++step) {
    lines += fmt::format("{{\"step\":{0},\"tokens\":{0},\"loss\":1,\"grad_norm\":2}}\n", step);
  }
  write_text("distill/metrics.jsonl", lines);
  EXPECT_LT(page().size(), 100'000u);
}

TEST(Thin, TakesMeansOrLargestAndKeepsGaps) {
  const std::vector<double> x = {1, 2, 3, 4, 5, 6};
  const std::vector<double> y = {1, 3, kNoNumber, kNoNumber, kNoNumber, 8};
  const auto mean = thin(x, y, Pool::kMean, 3), largest = thin(x, y, Pool::kMax, 3);
  ASSERT_EQ(mean.size(), 3u);
  EXPECT_EQ(mean[0].x, 2);
  EXPECT_EQ(mean[0].y, 2);
  EXPECT_TRUE(std::isnan(mean[1].y));
  EXPECT_EQ(mean[2].y, 8);
  EXPECT_EQ(largest[0].y, 3);
  EXPECT_EQ(thin(x, y, Pool::kMean).size(), 6u);
  EXPECT_EQ(thin(std::vector<double>(5000), std::vector<double>(5000), Pool::kMax).size(), 600u);
  EXPECT_TRUE(thin({}, {}, Pool::kMean).empty());
}

TEST(AxisMap, PlacesValuesOnLinearAndLogarithmicScales) {
  const AxisMap linear({"", Scale::kLinear, 0, 10}, {}, 0, 100, 0);
  EXPECT_DOUBLE_EQ(linear.pixel(0), 100);
  EXPECT_DOUBLE_EQ(linear.pixel(2.5), 75);
  EXPECT_DOUBLE_EQ(linear.pixel(11), 0);  // kept in the frame
  const AxisMap log2({"", Scale::kLog2}, {1024, 16384, -1, 0, kNoNumber}, 0, 0, 100);
  EXPECT_NEAR(log2.pixel(2048), 25, 1e-9);
  EXPECT_EQ(log2.pixel(0), 0);
  ASSERT_EQ(log2.ticks().size(), 5u);
  EXPECT_EQ(log2.ticks()[4].label, "16,384");
}

TEST(AxisMap, FitsTheRangeOfTheData) {
  EXPECT_EQ(share_axis("", 0.3).min, 0);
  EXPECT_DOUBLE_EQ(share_axis("", 0.87).min, 0.8);
  EXPECT_DOUBLE_EQ(share_axis("", 1).min, 0.9);
  EXPECT_GT(share_axis("", 1).max, 1);
  EXPECT_EQ(values_axis("loss", {2, 16, kNoNumber}).scale, Scale::kLinear);
  EXPECT_EQ(values_axis("loss", {2, 17}).scale, Scale::kLog10);
  EXPECT_EQ(values_axis("loss", {2, 17}).label, "loss (log axis)");
  EXPECT_EQ(values_axis("", {-1, 17}).scale, Scale::kLinear);
  // Ticks that lie near each other read differently.
  const AxisMap narrow({""}, {2.10102, 2.10171}, 0.05, 0, 100);
  std::set<std::string> labels;
  for (const Tick& tick : narrow.ticks()) labels.insert(tick.label);
  EXPECT_EQ(labels.size(), narrow.ticks().size());
  EXPECT_TRUE(labels.contains("2.1012")) << *labels.begin();
}

TEST(AxisMap, AnyRangeHasFewTicksInsideIt) {
  for (const Scale scale : {Scale::kLinear, Scale::kLog2, Scale::kLog10}) {
    for (const auto& values : std::vector<std::vector<double>>{{},
                                                               {0},
                                                               {3},
                                                               {1, std::nextafter(1.0, 2.0)},
                                                               {1e300, -1e300},
                                                               {1e-30, 1e30},
                                                               {1e15, 1e15 + 1},
                                                               {-5, 7},
                                                               {0.0312, 0.0318},
                                                               {INFINITY, 1}}) {
      const AxisMap axis({"", scale}, values, 0.05, 0, 100);
      const auto ticks = axis.ticks();
      EXPECT_LE(ticks.size(), 12u);
      for (const Tick& tick : ticks) {
        EXPECT_GE(axis.pixel(tick.value), -1e-6);
        EXPECT_LE(axis.pixel(tick.value), 100 + 1e-6);
      }
    }
  }
}

TEST(Markup, WritesNumbersForPeople) {
  EXPECT_EQ(format_figure(1048576), "1,048,576");
  EXPECT_EQ(format_figure(-1234), "-1,234");
  EXPECT_EQ(format_figure(0.41234), "0.4123");
  EXPECT_EQ(format_figure(kNoNumber), "–");
  EXPECT_EQ(format_short(1.5e6), "1.5M");
  EXPECT_EQ(format_short(999'999), "1M");
  EXPECT_EQ(format_estimate(0.5, kNoNumber, 2), "0.50");
  EXPECT_EQ(format_fixed(-0.0004, 3), "0.000");
  EXPECT_EQ(format_fixed(-0.0006, 3), "-0.001");
  EXPECT_EQ(format_short(2'101'300, 5), "2.1013M");
  EXPECT_EQ(format_length(131'072), "128K");
  EXPECT_EQ(format_length(1 << 20), "1M");
  EXPECT_EQ(format_length(512), "512");
  EXPECT_EQ(format_length(3000), "3,000");
  EXPECT_EQ(format_bytes(768), "768 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(3e10), "27.9 GiB");
  EXPECT_EQ(format_duration(59.7), "1 min 0 s");
  EXPECT_EQ(format_duration(12000), "3 h 20 min");
  EXPECT_EQ(escape_html("<a href=\"x\">&'"), "&lt;a href=&#34;x&#34;&gt;&amp;&#39;");
}

}  // namespace
}  // namespace halo
