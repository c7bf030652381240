// How two runs went: gates, losses, and the settings that differ.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "halo/base/check.h"
#include "halo/report/comparison.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

// Stages of both, in the order of the first; then those of the second alone.
std::vector<std::string> all_stages(const RunPair& runs) {
  std::vector<std::string> names;
  for (const RunFiles* run : {&runs.a, &runs.b}) {
    for (const StageFiles& stage : run->stages) {
      if (std::ranges::find(names, stage.name) == names.end()) names.push_back(stage.name);
    }
  }
  return names;
}

std::string gate_cell(const RunFiles& run, const std::string& name) {
  const StageFiles* stage = run.find(name);
  if (!stage) return "–";
  const JsonView gate = stage->result.view().object("gate");
  if (!gate) return stage->started ? "unfinished" : "not run";
  const bool passed = gate.flag("passed");
  return fmt::format("<span class=\"{}\">{}</span> {} ({} {})", passed ? "pass" : "fail",
                     passed ? "✓" : "✗", format_figure(gate.number("value")),
                     escape_html(gate.text("must_be")), format_figure(gate.number("limit")));
}

std::string gate_figure(const RunPair& runs, const std::string& name) {
  for (const RunFiles* run : {&runs.a, &runs.b}) {
    const StageFiles* stage = run->find(name);
    const std::string figure = stage ? stage->result.view().object("gate").text("figure") : "";
    if (!figure.empty()) return figure;
  }
  return "";
}

std::string loss_chart(const RunPair& runs, const std::string& name) {
  LineChart chart;
  chart.title = name;
  chart.x = {"tokens"};
  std::string unit = "loss";
  std::vector<double> all;
  for (const RunFiles* run : {&runs.a, &runs.b}) {
    const StageFiles* stage = run->find(name);
    if (!stage || stage->metrics.rows == 0) continue;
    const bool first = run == &runs.a;
    const std::vector<double> losses = stage->metrics.column("loss");
    all.insert(all.end(), losses.begin(), losses.end());
    chart.series.push_back(
        {first ? runs.name_a : runs.name_b, first ? student_look().color : unscaled_look().color,
         thin(stage->metrics.column("tokens"), losses, Pool::kMean), Marker::kNone, true, !first});
    if (const JsonView loss = stage->result.view().object("loss")) unit = loss.text("unit");
  }
  if (chart.series.empty()) return "";
  chart.y = values_axis(unit, all);
  chart.height = 250;
  return line_chart(chart);
}

void flatten(const toml::table& table, const std::string& prefix,
             std::map<std::string, std::string>& out) {
  for (const auto& [key, node] : table) {
    const std::string name = prefix + std::string(key.str());
    if (const toml::table* inner = node.as_table()) {
      flatten(*inner, name + ".", out);
      continue;
    }
    std::ostringstream text;
    node.visit([&](const auto& value) { text << value; });
    out[name] = text.str();
  }
}

std::string fact(const json::value& value) {
  return value.is_string() ? std::string(value.get_string()) : json::serialize(value);
}

std::map<std::string, std::string> facts(const RunFiles& run) {
  std::map<std::string, std::string> out;
  const JsonView environment = run.environment.view();
  if (!environment) return out;
  for (const auto& [key, value] : environment.members()) {
    if (key != "command") out[std::string(key)] = fact(value);
  }
  return out;
}

// A row a key whose values differ.
std::vector<std::vector<std::string>> different(const std::map<std::string, std::string>& a,
                                                const std::map<std::string, std::string>& b) {
  std::set<std::string> keys;
  for (const auto* values : {&a, &b}) {
    for (const auto& [key, value] : *values) keys.insert(key);
  }
  std::vector<std::vector<std::string>> rows;
  const auto cell = [](const std::map<std::string, std::string>& values, const std::string& key) {
    const auto it = values.find(key);
    return it == values.end() ? "–" : "<code>" + escape_html(it->second) + "</code>";
  };
  for (const std::string& key : keys) {
    std::vector<std::string> row = {escape_html(key), cell(a, key), cell(b, key)};
    if (row[1] != row[2]) rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace

std::map<std::string, std::string> flat_toml(const std::string& text, const std::string& file) {
  std::map<std::string, std::string> out;
  try {
    flatten(toml::parse(text), "", out);
  } catch (const toml::parse_error& error) {
    throw_error("{}:{}: {}", file, error.source().begin.line, error.description());
  }
  return out;
}

void compare_stages(Page& page, const RunPair& runs) {
  std::vector<std::vector<std::string>> rows;
  for (const std::string& name : all_stages(runs)) {
    rows.push_back({escape_html(name), gate_cell(runs.a, name), gate_cell(runs.b, name),
                    escape_html(gate_figure(runs, name))});
  }
  if (rows.empty()) return;
  page.add_section(
      "stages", "Gates", "",
      "<div class=\"gates-of-two\">" +
          html_table({"Stage", escape_html(runs.name_a), escape_html(runs.name_b), "gate's figure"},
                     rows) +
          "</div>");
}

void compare_training(Page& page, const RunPair& runs) {
  std::vector<std::string> charts;
  for (const std::string& name : all_stages(runs)) {
    if (std::string chart = loss_chart(runs, name); !chart.empty()) {
      charts.push_back(std::move(chart));
    }
  }
  if (charts.empty()) return;
  page.add_section("training", "Losses while training",
                   "By tokens trained on, on each run's own batches.", beside(charts));
}

void compare_settings(Page& page, const RunPair& runs) {
  const auto recipe = [](const RunFiles& run) {
    return flat_toml(run.recipe, (run.folder / "config.resolved.toml").string());
  };
  std::string body;
  const std::vector<std::string> names = {escape_html(runs.name_a), escape_html(runs.name_b)};
  for (const auto& [what, rows] : {std::pair{"Setting", different(recipe(runs.a), recipe(runs.b))},
                                   {"Circumstance", different(facts(runs.a), facts(runs.b))}}) {
    if (rows.empty()) continue;
    body += "<div class=\"facts\">" + html_table({what, names[0], names[1]}, rows) + "</div>";
  }
  if (body.empty()) body = note("Recipes and machines are the same.");
  page.add_section("settings", "What differs", "", std::move(body));
}

}  // namespace halo
