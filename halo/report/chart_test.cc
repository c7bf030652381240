// What a page must keep at every width: labels inside their charts, and which lengths it shows.
#include <gmock/gmock.h>

#include <charconv>
#include <regex>

#include "halo/report/frame.h"
#include "halo/report/report_testing.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

using test::ReportTest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// One as wide as the letter it stands for.
std::string unescape(std::string text) {
  return std::regex_replace(text, std::regex("&[a-z0-9#]+;"), "x");
}

struct Label {
  double left, right, height;
  std::string text;
};

// The labels of one svg by their estimated widths; one that is turned goes by its length.
std::vector<Label> labels_of(const std::string& svg) {
  static const std::regex text(
      "<text (?:x=\"([0-9.-]+)\" y=\"([0-9.-]+)\" class=\"([a-z "
      "]*)\"|([^>]*rotate[^>]*))>([^<]*)<");
  std::vector<Label> out;
  for (std::sregex_iterator it(svg.begin(), svg.end(), text), end; it != end; ++it) {
    const std::string content = unescape((*it)[5]), css = (*it)[3];
    const double width = text_width(content);
    if ((*it)[4].matched) {
      out.push_back({0, 0, width, content});
      continue;
    }
    const double x = std::stod((*it)[1]);
    const bool ends = css.find("end") != std::string::npos;
    const bool middle =
        css.find("mid") != std::string::npos || css == "axis" || css == "pale" || css == "strong";
    const double left = ends ? x - width : middle ? x - width / 2 : x;
    out.push_back({left, left + width, std::stod((*it)[2]), content});
  }
  return out;
}

void expect_labels_inside(const std::string& html, size_t charts) {
  static const std::regex chart(
      "<svg class=\"(?:wide|middle|narrow)\" viewBox=\"0 0 ([0-9.]+) ([0-9.]+)\"");
  size_t found = 0;
  for (std::sregex_iterator it(html.begin(), html.end(), chart), end; it != end; ++it, ++found) {
    const double width = std::stod((*it)[1]), height = std::stod((*it)[2]);
    const auto begin = static_cast<size_t>(it->position());
    const std::string svg = html.substr(begin, html.find("</svg>", begin) - begin);
    const std::vector<Label> labels = labels_of(svg);
    EXPECT_FALSE(labels.empty());
    for (const Label& label : labels) {
      EXPECT_GE(label.left, -1) << label.text << " at " << width;
      EXPECT_LE(label.right, width + 1) << label.text << " at " << width;
      EXPECT_LE(label.height, height) << label.text;
    }
  }
  EXPECT_EQ(found, charts);
}

TEST_F(ReportTest, LabelsStayInsideTheirChartsAtEveryWidth) {
  write_all();
  // The section's chart three times, half charts twice, heat maps once: 1 needles, 3 maps, 2 costs,
  // 2 held-out, 2 of select, 2 of scale, 2 alignment, 4 training.
  expect_labels_inside(page(), 3 + 3 + 2 * (2 + 2 + 2 + 2 + 2 + 4));
}

TEST_F(ReportTest, LongLengthsHaveShortNamesWhereRoomIsShort) {
  json::object needle;
  for (int64_t length = 16'384; length <= 1 << 20; length *= 2) {
    needle[std::to_string(length)] = {
        {"accuracy", 0.93},
        {"n", 10},
        {"by_depth", json::array{json::object{{"depth", 0.5}, {"accuracy", 0.93}}}}};
  }
  write("summary.json",
        json::object{{"training_length", 32'768}, {"teacher", {{"loss", 2}, {"needle", needle}}}});
  const std::string html = page();
  expect_labels_inside(html, 3 + 1);
  EXPECT_THAT(html, HasSubstr(">128K<"));
  EXPECT_THAT(html, HasSubstr("131,072 (4×)"));
  // All alike high: the axis begins at 0.9.
  EXPECT_THAT(html, HasSubstr(">0.92<"));
}

TEST(HeadlineLengths, AlwaysGoBeyondTheTrainingLength) {
  // None of the multiples that one would look for: 3 and 12 times the training length.
  EXPECT_THAT(headline_lengths({1024, 3072, 12'288}, 1024), ElementsAre(1024, 3072, 12'288));
  EXPECT_THAT(headline_lengths({256, 512, 1024, 2048, 4096, 8192, 16'384}, 1024),
              ElementsAre(1024, 2048, 8192, 16'384));
  EXPECT_THAT(headline_lengths({256, 512, 1024, 2048, 4096}, 1024, 2), ElementsAre(1024, 4096));
  EXPECT_THAT(headline_lengths({2000, 4000, 8000}, 512), ElementsAre(2000, 4000, 8000));
  EXPECT_THAT(headline_lengths({64, 128, 256, 512, 700}, 1024), ElementsAre(128, 256, 512, 700));
  EXPECT_THAT(headline_lengths({4096}, 1024), ElementsAre(4096));
  EXPECT_THAT(headline_lengths({64, 128}, kNoNumber), ElementsAre(64, 128));
  EXPECT_TRUE(headline_lengths({}, 1024).empty());
}

}  // namespace
}  // namespace halo
