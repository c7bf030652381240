// The search of the logit scale.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "halo/report/sections.h"

namespace halo {
namespace {

struct ScaleCandidate {
  std::string name;
  double a = kNoNumber;  // not finite: no candidate for a, shown beside
  JsonView figures;
};

std::vector<ScaleCandidate> scale_candidates(const JsonView& scale) {
  std::vector<ScaleCandidate> out;
  for (const JsonView& figures : scale.objects("candidates")) {
    ScaleCandidate c{figures.text("name"), kNoNumber, figures};
    double a = 0;
    const auto [end, error] = std::from_chars(c.name.data(), c.name.data() + c.name.size(), a);
    if (error == std::errc() && end == c.name.data() + c.name.size()) c.a = a;
    out.push_back(std::move(c));
  }
  const auto has_a = [](const ScaleCandidate& c) { return std::isfinite(c.a); };
  const auto rest = std::stable_partition(out.begin(), out.end(), std::not_fn(has_a));
  std::stable_sort(rest, out.end(),
                   [](const ScaleCandidate& x, const ScaleCandidate& y) { return x.a < y.a; });
  return out;
}

// A figure of each candidate, by a; those without an a are levels to compare with.
std::string scale_chart(const std::vector<ScaleCandidate>& candidates, const std::string& chosen,
                        const std::string& title, Axis y, const char* key, const char* error_key) {
  const ModelLook fitted = student_look();
  LineChart chart;
  chart.title = title;
  chart.x = {"a (log axis)", Scale::kLog10};
  chart.y = std::move(y);
  Series curve{"a: ln(t + a) / ln a at position t", fitted.color, {}, fitted.marker};
  for (const ScaleCandidate& c : candidates) {
    const double value = c.figures.number(key), error = c.figures.number(error_key);
    const std::string mark = c.name == chosen ? " (chosen)" : "";
    if (!std::isfinite(c.a)) {
      chart.horizontal.push_back({value, c.name + mark, unscaled_look().color});
      continue;
    }
    chart.x.ticks.push_back({c.a, format_figure(c.a), format_short(c.a)});
    curve.points.push_back({c.a, value, kNoNumber, error,
                            fmt::format("{}: {}", c.name, format_estimate(value, error, 4))});
    if (c.name == chosen) chart.vertical = {{c.a, "chosen", "var(--student)"}};
  }
  if (curve.points.empty()) return "";
  // Room at the right for the names of the levels.
  const double first = curve.points.front().x, last = curve.points.back().x;
  chart.x.min = first / 1.2;
  chart.x.max = last * std::pow(std::max(last / first, 4.0), 0.4);
  chart.series = {std::move(curve)};
  return line_chart(chart);
}

// The charts of both figures; none where no a was tried.
std::string scale_charts(const std::vector<ScaleCandidate>& candidates, const std::string& chosen,
                         const std::string& lengths) {
  double lowest = 1;
  for (const ScaleCandidate& c : candidates) {
    const double error = c.figures.number("accuracy_stderr");
    lowest = std::min(lowest, c.figures.number("accuracy") - (std::isfinite(error) ? error : 0));
  }
  const std::string needles =
      scale_chart(candidates, chosen, "Needles found, " + lengths,
                  share_axis("share of needles found", lowest), "accuracy", "accuracy_stderr");
  if (needles.empty()) return "";
  return beside({needles, scale_chart(candidates, chosen, "Loss past the training length",
                                      {"loss (nats a token)"}, "loss_beyond_training_length",
                                      "loss_stderr")});
}

std::string scale_table(const std::vector<ScaleCandidate>& candidates, const std::string& chosen,
                        const std::string& lengths_counted) {
  std::vector<std::string> header = {"Logit scale", "needles found, " + lengths_counted};
  const auto lengths = by_length(candidates.front().figures.object("needle"));
  for (const auto& [length, scores] : lengths) {
    header.push_back(fmt::format("at {} (n = {})", format_figure(double(length)),
                                 format_figure(scores.number("n"))));
  }
  header.push_back("loss past the training length");
  std::vector<std::vector<std::string>> rows;
  for (const ScaleCandidate& c : candidates) {
    const std::string name = (std::isfinite(c.a) ? "a = " : "") + escape_html(c.name);
    std::vector<std::string> row = {
        c.name == chosen ? "<b>" + name + " (chosen)</b>" : name,
        format_estimate(c.figures.number("accuracy"), c.figures.number("accuracy_stderr"), 3)};
    for (const auto& [length, unused] : lengths) {
      const JsonView at = c.figures.object("needle").object(std::to_string(length));
      row.push_back(format_estimate(at.number("accuracy"), at.number("stderr"), 3));
    }
    row.push_back(format_estimate(c.figures.number("loss_beyond_training_length"),
                                  c.figures.number("loss_stderr"), 4));
    rows.push_back(std::move(row));
  }
  return html_table(header, rows);
}

}  // namespace

void add_scale(Page& page, const RunFiles& run) {
  const JsonView scale = run.scale.view();
  const std::vector<ScaleCandidate> candidates = scale_candidates(scale);
  if (candidates.empty()) return;
  const std::string chosen = scale.text("chosen");
  // Earlier versions chose by all lengths, and did not say how.
  const std::string rule = scale.text("rule");
  const std::string lengths =
      rule.empty() ? "all lengths of the search" : "beyond the training length";
  page.add_section(
      "scale", "Logit scale",
      fmt::format("The query at position t of each attention layer is multiplied by ln(t + a) / ln "
                  "a. Chosen on the search half of the held-out text{}. Error bars are one "
                  "standard error.",
                  rule.empty() ? "" : ": " + escape_html(rule)),
      scale_charts(candidates, chosen, lengths) + scale_table(candidates, chosen, lengths));
}

}  // namespace halo
