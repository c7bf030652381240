// What a token costs while a model runs: memory that a sequence keeps, and time, by length.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "halo/report/sections.h"

namespace halo {
namespace {

struct Model {
  ModelLook look;
  JsonView figures;

  double bytes(double length) const {
    return figures.number("kv_bytes_per_token") * length + figures.number("state_bytes");
  }
  double milliseconds(int64_t length) const {
    return 1e3 * figures.object("decode").object(std::to_string(length)).number("seconds");
  }
};

std::vector<Model> models_of(const JsonView& summary) {
  std::vector<Model> out;
  for (const Model& model : {Model{teacher_look(), summary.object("teacher")},
                             Model{student_look(), summary.object("student")}}) {
    if (model.figures.has("kv_bytes_per_token")) out.push_back(model);
  }
  return out;
}

Series series_of(const Model& model) {
  // The look's name says which logit scale, which costs nothing here.
  const ModelLook& look = model.look;
  return {look.name.substr(0, look.name.find(',')), look.color, {}, look.marker};
}

std::string memory_chart(const std::vector<Model>& models, const std::vector<double>& lengths) {
  LineChart chart;
  chart.title = "Memory a token, by length";
  chart.x = {"tokens of the sequence (log₂ axis)", Scale::kLog2};
  for (const double length : lengths) chart.x.ticks.push_back({length, format_length(length)});
  chart.y = {"KiB a token (log axis)", Scale::kLog10};
  for (const Model& model : models) {
    Series series = series_of(model);
    for (const double length : lengths) {
      const double bytes = model.bytes(length);
      series.points.push_back(
          {length, bytes / length / 1024, kNoNumber, kNoNumber,
           fmt::format("{}, {} tokens: {} in all, {} a token", series.name, format_figure(length),
                       format_bytes(bytes), format_bytes(bytes / length))});
    }
    chart.series.push_back(std::move(series));
  }
  return line_chart(chart);
}

std::string time_chart(const std::vector<Model>& models, const std::set<int64_t>& lengths) {
  LineChart chart;
  chart.title = "Time of one more token, by length";
  chart.x = {"tokens before it (log₂ axis)", Scale::kLog2};
  for (const int64_t length : lengths) {
    chart.x.ticks.push_back(
        {double(length), format_figure(double(length)), format_length(double(length))});
  }
  chart.y = {"milliseconds", Scale::kLinear, 0};
  for (const Model& model : models) {
    Series series = series_of(model);
    for (const int64_t length : lengths) {
      const double time = model.milliseconds(length);
      series.points.push_back(
          {double(length), time, kNoNumber, kNoNumber,
           fmt::format("{}, {} tokens: {} ms", series.name, length, format_figure(time))});
    }
    chart.series.push_back(std::move(series));
  }
  return line_chart(chart);
}

std::string cost_table(const std::vector<Model>& models, const std::set<int64_t>& lengths) {
  std::vector<std::string> header = {"Tokens"};
  for (const char* what : {"memory, ", "time of one more, "}) {
    for (const Model& model : models) {
      header.push_back(what + escape_html(series_of(model).name));
    }
  }
  std::vector<std::vector<std::string>> rows;
  for (const int64_t length : lengths) {
    std::vector<std::string> row = {format_figure(double(length))};
    for (const Model& model : models) row.push_back(format_bytes(model.bytes(double(length))));
    for (const Model& model : models) {
      const double time = model.milliseconds(length);
      row.push_back(std::isfinite(time) ? format_figure(time) + " ms" : format_figure(time));
    }
    rows.push_back(std::move(row));
  }
  return html_table(header, rows);
}

}  // namespace

void add_cost(Page& page, const RunFiles& run) {
  const JsonView summary = run.summary.view();
  const std::vector<Model> models = models_of(summary);
  if (models.empty()) return;
  std::set<int64_t> timed;
  double count = kNoNumber;
  for (const Model& model : models) {
    for (const auto& [length, time] : by_length(model.figures.object("decode"))) {
      timed.insert(length);
      count = time.number("n");
    }
  }
  const double trained = std::clamp(
      summary.has("training_length") ? summary.number("training_length") : 1024, 1.0, 1e9);
  std::vector<double> lengths;
  for (double length = std::max(1.0, trained / 4); length <= 64 * trained; length *= 2) {
    lengths.push_back(length);
  }
  std::vector<std::string> charts = {memory_chart(models, lengths)};
  if (!timed.empty()) charts.push_back(time_chart(models, timed));
  std::set<int64_t> shown = timed;
  for (const int64_t times : {1, 8, 64}) shown.insert(times * static_cast<int64_t>(trained));
  std::string body = beside(charts) + cost_table(models, shown);
  if (!timed.empty()) {
    body += note(fmt::format(
        "Times: one sequence on {}, the median of {} tokens after as many as shown.",
        run.environment.view() ? run.environment.view().text("device") : "the run's machine",
        format_figure(count)));
  }
  page.add_section(
      "cost", "Memory and time a token",
      "A sequence keeps keys and values of every token (here in bfloat16) in each attention layer, "
      "and in each other layer one state (float32) that does not grow. Memory follows from the two "
      "configurations.",
      std::move(body));
}

}  // namespace halo
