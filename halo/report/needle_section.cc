// Needles by length, and by length and depth, of all three models.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "halo/report/sections.h"

namespace halo {
namespace {

struct Model {
  ModelLook look;
  JsonView needle;
};

std::vector<Model> models_of(const JsonView& summary) {
  std::vector<Model> out;
  const JsonView teacher = summary.object("teacher"), student = summary.object("student");
  for (Model model : {Model{student_look(), student.object("needle")},
                      Model{unscaled_look(), student.object("needle_unscaled")},
                      Model{teacher_look(), teacher.object("needle")}}) {
    if (model.needle) out.push_back(std::move(model));
  }
  return out;
}

std::vector<int64_t> all_lengths(const std::vector<Model>& models) {
  std::set<int64_t> lengths;
  for (const Model& model : models) {
    for (const auto& [length, scores] : by_length(model.needle)) lengths.insert(length);
  }
  return {lengths.begin(), lengths.end()};
}

std::string describe(const JsonView& scores) {
  std::string out = format_estimate(scores.number("accuracy"), scores.number("stderr"), 3) +
                    fmt::format(" (n = {}", format_figure(scores.number("n")));
  if (scores.has("clusters")) {
    out += fmt::format(", {} haystacks", format_figure(scores.number("clusters")));
  }
  return out + ")";
}

std::string length_label(int64_t length, double training_length) {
  const std::string tokens = format_figure(double(length));
  return std::isfinite(training_length)
             ? fmt::format("{} ({:.3g}×)", tokens, double(length) / training_length)
             : tokens;
}

std::string curves(const std::vector<Model>& models, double training_length) {
  LineChart chart;
  chart.title = "Needle accuracy by length";
  chart.x = {"prompt and answer (tokens; log₂ axis)", Scale::kLog2};
  for (const int64_t length : all_lengths(models)) {
    chart.x.ticks.push_back(
        {double(length), length_label(length, training_length), format_length(double(length))});
  }
  double lowest = 1;
  for (const Model& model : models) {
    const ModelLook& look = model.look;
    Series series{look.name, look.color, {}, look.marker, true, look.dashed, look.shift};
    for (const auto& [length, scores] : by_length(model.needle)) {
      series.points.push_back(
          {double(length), scores.number("accuracy"), kNoNumber, scores.number("stderr"),
           fmt::format("{}, {} tokens: {}", look.name, length, describe(scores))});
    }
    for (const Point& p : series.points) {
      lowest = std::min(lowest, p.y - (std::isfinite(p.y_error) ? p.y_error : 0));
    }
    chart.series.push_back(std::move(series));
  }
  chart.y = share_axis("share of needles found", lowest);
  chart.vertical = {{training_length, "training length"}};
  chart.place = Place::kSection;
  chart.height = 330;
  return line_chart(chart);
}

std::string depth_map(const Model& model, const std::vector<int64_t>& lengths,
                      double training_length) {
  HeatMap map;
  map.title = model.look.name;
  map.x_label = "length (tokens)";
  map.y_label = "depth";
  const auto scored = by_length(model.needle);
  std::set<double> depths;
  for (const auto& [length, scores] : scored) {
    for (const JsonView& row : scores.objects("by_depth")) {
      if (row.has("depth")) depths.insert(row.number("depth"));
    }
  }
  if (depths.empty()) return "";
  const size_t columns = lengths.size();
  map.values.assign(depths.size() * columns, kNoNumber);
  map.notes.assign(map.values.size(), "");
  for (const double depth : depths) map.rows.push_back(fmt::format("{:.0f}%", 100 * depth));
  for (const int64_t length : lengths) {
    map.columns.push_back({0, format_figure(double(length)), format_length(double(length))});
    if (double(length) <= training_length) ++map.border;
  }
  if (map.border == columns) map.border = 0;
  map.border_label = "beyond training length";
  for (const auto& [length, scores] : scored) {
    const size_t column = std::ranges::find(lengths, length) - lengths.begin();
    for (const JsonView& row : scores.objects("by_depth")) {
      if (!row.has("depth")) continue;
      const size_t at =
          std::distance(depths.begin(), depths.find(row.number("depth"))) * columns + column;
      map.values[at] = row.number("accuracy");
      map.notes[at] = fmt::format("{} tokens, depth {:.0f}%: {}", length, 100 * row.number("depth"),
                                  describe(row));
    }
  }
  return heat_map(map);
}

std::string accuracy_table(const std::vector<Model>& models, const std::vector<int64_t>& lengths,
                           double training_length) {
  std::vector<std::string> header = {"Length"};
  for (const Model& model : models) header.push_back(escape_html(model.look.name));
  header.push_back("questions");
  header.push_back("haystacks");
  std::vector<std::vector<std::string>> rows;
  for (const int64_t length : lengths) {
    std::vector<std::string> row = {length_label(length, training_length)};
    JsonView counted;
    for (const Model& model : models) {
      const JsonView scores = model.needle.object(std::to_string(length));
      row.push_back(format_estimate(scores.number("accuracy"), scores.number("stderr"), 3));
      if (!counted) counted = scores;
    }
    row.push_back(format_figure(counted.number("n")));
    row.push_back(format_figure(counted.number("clusters")));
    rows.push_back(std::move(row));
  }
  return html_table(header, rows);
}

}  // namespace

void add_needles(Page& page, const RunFiles& run) {
  const JsonView summary = run.summary.view();
  const std::vector<Model> models = models_of(summary);
  const std::vector<int64_t> lengths = all_lengths(models);
  if (lengths.empty()) return;
  const double training_length = summary.number("training_length");
  std::vector<std::string> maps;
  for (const Model& model : models) {
    if (std::string map = depth_map(model, lengths, training_length); !map.empty()) {
      maps.push_back(std::move(map));
    }
  }
  std::string body = curves(models, training_length);
  if (!maps.empty()) {
    body += "<h3>By length and depth (0% is the beginning of the haystack)</h3>" + beside(maps, 3);
  }
  body += accuracy_table(models, lengths, training_length);
  page.add_section(
      "needles", "Needles",
      "A 7-digit number is hidden in held-out prose and asked for at the end; a needle is found if "
      "greedy decoding gives all its digits. Error bars and ± are one standard error, clustered by "
      "haystack.",
      std::move(body));
}

}  // namespace halo
