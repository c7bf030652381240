// Loss, bits per byte and KL on held-out text, and loss by position past the training length.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "halo/report/sections.h"

namespace halo {
namespace {

// A bucket's place on a logarithmic axis; the first one begins at 0, which has none.
double middle(const JsonView& bucket) {
  const double from = bucket.number("from"), to = bucket.number("to");
  return from > 0 ? std::sqrt(from * to) : to / 2;
}

Series position_series(const ModelLook& look, const std::vector<JsonView>& buckets,
                       const std::string& key, const std::string& error_key) {
  Series series{look.name, look.color, {}, look.marker, true, look.dashed, look.shift / 2};
  for (const JsonView& bucket : buckets) {
    series.points.push_back(
        {middle(bucket), bucket.number(key), kNoNumber, bucket.number(error_key),
         fmt::format("{}, positions {} to {}: {} (n = {} tokens, {} rows)", look.name,
                     format_figure(bucket.number("from")), format_figure(bucket.number("to")),
                     format_estimate(bucket.number(key), bucket.number(error_key), 3),
                     format_figure(bucket.number("n")), format_figure(bucket.number("clusters")))});
  }
  return series;
}

LineChart position_chart(const std::string& title, const std::string& y_label,
                         std::vector<Series> series) {
  LineChart chart;
  chart.title = title;
  chart.x = {"position in the sequence (tokens; log₂ axis)", Scale::kLog2};
  std::vector<double> values;
  for (const Series& one : series) {
    for (const Point& point : one.points) values.push_back(point.y);
  }
  chart.y = values_axis(y_label, values);
  chart.series = std::move(series);
  return chart;
}

std::string scores_table(const JsonView& teacher, const JsonView& student) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, scores] : {std::pair{"teacher", teacher}, {"student", student}}) {
    if (!scores) continue;
    rows.push_back({name, format_estimate(scores.number("loss"), scores.number("stderr"), 4),
                    format_fixed(scores.number("bits_per_byte"), 4),
                    format_estimate(scores.number("kl"), scores.number("kl_stderr"), 4),
                    format_figure(scores.number("n")), format_figure(scores.number("clusters"))});
  }
  return html_table({"Model", "loss (nats a token)", "bits per byte",
                     "KL from the teacher (nats a token)", "tokens", "documents"},
                    rows);
}

}  // namespace

void add_held_out(Page& page, const RunFiles& run) {
  const JsonView summary = run.summary.view(), teacher = summary.object("teacher"),
                 student = summary.object("student");
  if (!teacher && !student) return;
  const double training_length = summary.number("training_length");
  std::vector<Series> loss;
  std::string rows;
  for (const auto& [look, scores] :
       {std::pair{teacher_look(), teacher}, {student_look(), student}}) {
    const std::vector<JsonView> buckets = scores.objects("loss_by_position");
    if (buckets.empty()) continue;
    loss.push_back(position_series(look, buckets, "loss", "stderr"));
    rows = format_figure(buckets.front().number("clusters"));
  }
  std::vector<std::string> charts;
  if (!loss.empty()) {
    LineChart chart = position_chart("Loss by position, whole stretches of the held-out stream",
                                     "loss (nats a token)", std::move(loss));
    chart.vertical = {{training_length, "training length"}};
    charts.push_back(line_chart(chart));
  }
  std::vector<JsonView> kl_buckets = student.objects("by_position");
  std::erase_if(kl_buckets, [](const JsonView& bucket) { return !bucket.has("kl"); });
  if (!kl_buckets.empty()) {
    ModelLook look = student_look();
    look.shift = 0;
    charts.push_back(line_chart(position_chart(
        "KL of the student from the teacher, within the training length", "KL (nats a token)",
        {position_series(look, kl_buckets, "kl", "kl_stderr")})));
  }
  std::string body = scores_table(teacher, student);
  if (!charts.empty()) body += beside(charts);
  if (!rows.empty()) {
    body += note(fmt::format(
        "Loss by position: {} rows of the stream, each scored from its first token; a point stands "
        "for a range of positions and lies at its geometric middle.",
        rows));
  }
  page.add_section("held-out", "Held-out text",
                   "Next-token loss on text that no stage was trained on or searched with; errors "
                   "are standard errors clustered by document, by row for the loss by position.",
                   std::move(body));
}

}  // namespace halo
