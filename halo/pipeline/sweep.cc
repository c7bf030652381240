#include "halo/pipeline/sweep.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "halo/base/check.h"
#include "halo/pipeline/stage.h"

namespace halo {
namespace {

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\n"), end = text.find_last_not_of(" \t\n");
  return begin == std::string::npos ? "" : std::string(text.substr(begin, end - begin + 1));
}

// At separators outside brackets and quotes.
std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts(1);
  int depth = 0;
  bool quoted = false;
  for (const char c : text) {
    if (c == '"') quoted = !quoted;
    if (!quoted) depth += c == '[' ? 1 : c == ']' ? -1 : 0;
    if (c == separator && depth == 0 && !quoted) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  std::ranges::transform(parts, parts.begin(), trimmed);
  return parts;
}

// A name for files.
std::string plain(std::string name) {
  std::erase_if(name, [](char c) { return c == '"' || c == ' ' || c == '[' || c == ']'; });
  std::ranges::replace(name, '/', '_');
  return name;
}

// One value of an axis.
struct AxisValue {
  std::string name;
  std::vector<std::string> set;
  bool is_seed = false;
};

std::vector<AxisValue> read_axis(const std::string& axis) {
  const size_t equals = axis.find('=');
  const std::string key = trimmed(axis.substr(0, equals));
  const std::string list = equals == std::string::npos ? "" : trimmed(axis.substr(equals + 1));
  if (key.empty() || !list.starts_with('[') || !list.ends_with(']')) {
    throw_error("sweep.axes: '{}' is not KEY=[VALUE, VALUE, ...]", axis);
  }
  std::vector<AxisValue> choices;
  for (const std::string& value : split(list.substr(1, list.size() - 2), ',')) {
    if (value.empty()) throw_error("sweep.axes: '{}' has an empty value", axis);
    const std::string assignment = key + "=" + value;
    choices.push_back({plain(assignment), {assignment}, key == "run.seed"});
  }
  return choices;
}

AxisValue read_case(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos || trimmed(text.substr(0, colon)).empty()) {
    throw_error("sweep.cases: '{}' is not NAME: KEY=VALUE; KEY=VALUE", text);
  }
  AxisValue choice{plain(trimmed(text.substr(0, colon))), {}};
  for (const std::string& assignment : split(text.substr(colon + 1), ';')) {
    if (!assignment.empty()) choice.set.push_back(assignment);
  }
  return choice;
}

std::string joined(const std::string& name, const std::string& more) {
  return name.empty() ? more : name + "," + more;
}

Recipe recipe_of(const std::filesystem::path& recipe, const SweepCell& cell) {
  return read_recipe(recipe, cell.set);
}

}  // namespace

std::vector<SweepCell> sweep_cells(const SweepRecipe& sweep) {
  std::vector<std::vector<AxisValue>> axes;
  if (!sweep.cases.empty()) {
    std::ranges::transform(sweep.cases, std::back_inserter(axes.emplace_back()), read_case);
  }
  std::ranges::transform(sweep.axes, std::back_inserter(axes), read_axis);
  if (axes.empty()) throw_error("sweep: there are no axes and no cases, so nothing is varied");
  std::vector<SweepCell> cells = {{"", sweep.set, ""}};
  for (const std::vector<AxisValue>& axis : axes) {
    std::vector<SweepCell> more;
    for (const SweepCell& cell : cells) {
      for (const AxisValue& choice : axis) {
        SweepCell& next = more.emplace_back(cell);
        next.name = joined(cell.name, choice.name);
        if (!choice.is_seed) next.group = joined(cell.group, choice.name);
        next.set.insert(next.set.end(), choice.set.begin(), choice.set.end());
      }
    }
    cells = std::move(more);
  }
  std::set<std::string> names;
  for (const SweepCell& cell : cells) {
    if (!names.insert(cell.name).second) throw_error("sweep: two cells are '{}'", cell.name);
  }
  return cells;
}

size_t shared_stages(const std::filesystem::path& recipe, const SweepCell& cell,
                     const SweepCell& other) {
  const Recipe a = recipe_of(recipe, cell), b = recipe_of(recipe, other);
  const std::vector<Difference> changed = differences(a, b);
  size_t shared = 0;
  for (const Stage& stage : pipeline_stages()) {
    if (is_wanted(stage, a) != is_wanted(stage, b)) break;
    if (!is_wanted(stage, a)) continue;
    const bool differs = std::ranges::any_of(changed, [&](const Difference& d) {
      return d.effect != Effect::kNone && reads(stage, d.key);
    });
    const bool trained_longer = stage.reads_training_length &&
                                context_settings(a).longest_row != context_settings(b).longest_row;
    if (differs || trained_longer) break;
    ++shared;
  }
  return shared;
}

std::string sweep_table(const json::object& result) {
  std::vector<std::string> figures;
  for (const json::value& group : result.at("groups").as_array()) {
    for (const auto& [name, value] : group.at("figures").as_object()) {
      const std::string figure(name);
      if (std::ranges::find(figures, figure) == figures.end()) figures.push_back(figure);
    }
  }
  std::string text = "| cell | runs | not finished |";
  for (const std::string& figure : figures) text += " " + figure + " |";
  text += "\n|---|---|---|";
  for (size_t i = 0; i < figures.size(); ++i) text += "---|";
  for (const json::value& group : result.at("groups").as_array()) {
    const std::string_view name = group.at("name").as_string();
    text += fmt::format("\n| {} | {} | {} |", name.empty() ? "all" : name,
                        group.at("n").to_number<int64_t>(),
                        group.at("not_finished").to_number<int64_t>());
    for (const std::string& figure : figures) {
      const json::value* found = group.at("figures").as_object().if_contains(figure);
      if (!found) {
        text += " - |";
        continue;
      }
      const double mean = found->at("mean").to_number<double>();
      const json::value& error = found->at("stderr");
      text += error.is_null() ? fmt::format(" {:.4g} |", mean)
                              : fmt::format(" {:.4g} ± {:.2g} |", mean, error.to_number<double>());
    }
  }
  text += "\n";
  for (const json::value& cell : result.at("cells").as_array()) {
    const std::string_view state = cell.at("state").as_string();
    if (state == "done") continue;
    text += fmt::format("\n- {}: {}", std::string_view(cell.at("name").as_string()),
                        state.empty() ? "not begun" : state);
  }
  return text.ends_with("|\n") ? text : text + "\n";
}

}  // namespace halo
