#include "halo/eval/tasks/results.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/testing.h"

namespace halo {
namespace {

Outcome outcome(double acc, double loss) {
  return {{{"acc", acc}, {"perplexity", loss, Figure::Mean::kExp}}, {}};
}

TEST(TaskResults, StandardErrorsDivideByOneLessThanTheItems) {
  const TaskResult result = summarise("t", {"a", "b", "c", "d"},
                                      {outcome(1, 1), outcome(0, 2), outcome(1, 4), outcome(1, 1)});
  ASSERT_EQ(result.figures.size(), 2u);
  const Estimate& acc = result.figures[0].estimate;
  EXPECT_EQ(acc.mean, 0.75);
  EXPECT_EQ(acc.n, 4);
  EXPECT_NEAR(acc.standard_error, std::sqrt(0.75 * 0.25 * 4 / 3 / 4), 1e-12);
  const Estimate& perplexity = result.figures[1].estimate;
  EXPECT_NEAR(perplexity.mean, std::exp(2), 1e-12);
  EXPECT_NEAR(perplexity.standard_error, std::exp(2) * std::sqrt((1 + 0 + 4 + 1) / 3.0 / 4), 1e-12);
}

TEST(TaskResults, DifferencesArePairedByItem) {
  const TaskResult a =
      summarise("t", {"a", "b", "c"}, {outcome(1, 1), outcome(0, 2), outcome(0, 3)});
  const TaskResult b =
      summarise("t", {"a", "b", "c"}, {outcome(1, 1), outcome(1, 2), outcome(0, 3)});
  const Estimate acc = paired_difference(a.figures[0], b.figures[0]);
  EXPECT_NEAR(acc.mean, -1.0 / 3, 1e-12);
  EXPECT_NEAR(acc.standard_error, std::sqrt((2.0 / 3) / 2 / 3), 1e-12);
  EXPECT_EQ(paired_difference(a.figures[1], b.figures[1]).standard_error, 0);

  const TaskResult other =
      summarise("t", {"a", "b", "x"}, {outcome(1, 1), outcome(0, 2), outcome(0, 3)});
  EXPECT_NE(test::error_of([&] {
              paired_difference(a.figures[0], other.figures[0]);
            }).find("different items"),
            std::string::npos);
}

TEST(TaskResults, JsonAndTextNameEveryModelAndFigure) {
  const std::vector<ModelResult> models = {
      {"first", {summarise("t", {"a", "b"}, {outcome(1, 1), outcome(0, 2)})}},
      {"second", {summarise("t", {"a", "b"}, {outcome(1, 1), outcome(1, 2)})}}};
  const json::object object = results_to_json(models);
  const json::array& list = object.at("models").as_array();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[1].at("model").as_string(), "second");
  const json::object& acc = list[1].at("tasks").at("t").at("acc").as_object();
  EXPECT_EQ(acc.at("value").as_double(), 1);
  EXPECT_EQ(acc.at("stderr").as_double(), 0);
  EXPECT_EQ(acc.at("n").to_number<int64_t>(), 2);
  EXPECT_EQ(acc.at("difference").as_double(), 0.5);
  EXPECT_FALSE(list[0].at("tasks").at("t").at("acc").as_object().contains("difference"));
  const std::string text = results_to_text(models);
  EXPECT_NE(text.find("second"), std::string::npos);
  EXPECT_NE(text.find("0.5000 \u00b1 0.5000"), std::string::npos) << text;
  EXPECT_EQ(std::ranges::count(text, '\n'), 3);
}

}  // namespace
}  // namespace halo
