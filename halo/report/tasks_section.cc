// What the models can do: RUN/tasks.json, which `halo eval --tasks ... --out RUN/tasks.json` wrote,
// of one run or of two; and what they wrote, RUN/task-samples.jsonl of `--log-samples`.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "halo/base/utf8.h"
#include "halo/report/comparison.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

struct TaskModel {
  std::string name;
  JsonView tasks;
};

std::vector<TaskModel> models_of(const JsonView& file) {
  std::vector<TaskModel> models;
  for (const JsonView& model : file.objects("models")) {
    models.push_back({model.text("model"), model.object("tasks")});
  }
  return models;
}

// A task that is made to lengths names its figures by them.
bool is_length(std::string_view figure) {
  return !figure.empty() &&
         std::ranges::all_of(figure, [](char c) { return c >= '0' && c <= '9'; });
}
// "4096@0.5", "kl@512-1024": of items or tokens at a place, or of a kind.
bool has_place(std::string_view figure) {
  return figure.find('@') != std::string_view::npos;
}

constexpr const char* kNone = "–";

std::string value_of(const JsonView& figure) {
  return figure ? format_estimate(figure.number("value"), figure.number("stderr"), 3) : kNone;
}
std::string difference_of(const JsonView& figure) {
  if (!figure || !figure.has("difference")) return kNone;
  return format_estimate(figure.number("difference"), figure.number("difference_stderr"), 3);
}

// Names in the order in which models first have them.
std::vector<std::string> names_of(const std::vector<JsonView>& objects) {
  std::vector<std::string> names;
  for (const JsonView& object : objects) {
    if (!object) continue;
    for (const auto& [key, value] : object.members()) {
      const std::string name(key);
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  }
  return names;
}

std::vector<JsonView> of_task(const std::vector<TaskModel>& models, const std::string& task) {
  std::vector<JsonView> figures;
  for (const TaskModel& model : models) figures.push_back(model.tasks.object(task));
  return figures;
}

std::string figure_table(const std::vector<TaskModel>& models,
                         const std::vector<std::string>& tasks) {
  std::vector<std::string> header = {"task", "figure", "items"};
  for (size_t m = 0; m < models.size(); ++m) {
    header.push_back(escape_html(models[m].name));
    if (m > 0) header.emplace_back("difference to the first");
  }
  std::vector<std::vector<std::string>> rows;
  for (const std::string& task : tasks) {
    const std::vector<JsonView> by_model = of_task(models, task);
    for (const std::string& figure : names_of(by_model)) {
      if (is_length(figure) || has_place(figure)) continue;
      std::vector<std::string>& row = rows.emplace_back();
      row = {escape_html(task), escape_html(figure), kNone};
      for (size_t m = 0; m < models.size(); ++m) {
        const JsonView found = by_model[m].object(figure);
        if (found) row[2] = format_figure(found.number("n"));
        row.push_back(value_of(found));
        if (m > 0) row.push_back(difference_of(found));
      }
    }
  }
  return rows.empty() ? "" : html_table(header, rows);
}

std::string length_table(const std::vector<TaskModel>& models,
                         const std::vector<std::string>& tasks) {
  std::vector<int64_t> lengths;
  for (const std::string& task : tasks) {
    for (const std::string& figure : names_of(of_task(models, task))) {
      if (is_length(figure) && figure.size() < 10) lengths.push_back(std::stoll(figure));
    }
  }
  std::ranges::sort(lengths);
  lengths.erase(std::ranges::unique(lengths).begin(), lengths.end());
  if (lengths.empty()) return "";
  std::vector<std::string> header = {"task", "model"};
  for (const int64_t length : lengths) header.push_back(format_length(double(length)));
  std::vector<std::vector<std::string>> rows;
  for (const std::string& task : tasks) {
    const std::vector<JsonView> by_model = of_task(models, task);
    if (std::ranges::none_of(names_of(by_model), is_length)) continue;
    for (size_t m = 0; m < models.size(); ++m) {
      std::vector<std::string>& row = rows.emplace_back();
      row = {escape_html(task), escape_html(models[m].name)};
      for (const int64_t length : lengths) {
        row.push_back(value_of(by_model[m].object(std::to_string(length))));
      }
    }
  }
  return "<h3>By length in tokens</h3>\n" + html_table(header, rows);
}

// A table for each figure that there is of places, a column a place.
std::string place_tables(const std::vector<TaskModel>& models,
                         const std::vector<std::string>& tasks) {
  std::string out;
  for (const std::string& task : tasks) {
    const std::vector<JsonView> by_model = of_task(models, task);
    const std::vector<std::string> names = names_of(by_model);
    std::vector<std::string> done;
    for (const std::string& name : names) {
      const std::string figure = name.substr(0, name.find('@'));
      if (!has_place(name) || std::ranges::find(done, figure) != done.end()) continue;
      done.push_back(figure);
      std::vector<std::string> header = {
          escape_html(task + (is_length(figure) ? ", " + figure + " tokens" : ": " + figure))};
      std::vector<std::vector<std::string>> rows;
      for (const TaskModel& model : models) rows.push_back({escape_html(model.name)});
      for (const std::string& other : names) {
        if (!other.starts_with(figure + "@")) continue;
        header.push_back(escape_html(other.substr(figure.size() + 1)));
        for (size_t m = 0; m < models.size(); ++m) {
          rows[m].push_back(value_of(by_model[m].object(other)));
        }
      }
      std::erase_if(rows, [](const std::vector<std::string>& row) {
        return std::ranges::all_of(row.begin() + 1, row.end(),
                                   [](const std::string& cell) { return cell == kNone; });
      });
      out += html_table(header, rows);
    }
  }
  return out.empty() ? "" : "<h3>By place, position or kind</h3>\n" + out;
}

std::string shortened(const std::string& text) {
  constexpr size_t kMost = 300;  // bytes
  if (text.size() <= kMost) return escape_html(text);
  const std::string_view begin = std::string_view(text).substr(0, kMost);
  return escape_html(begin.substr(0, valid_utf8_prefix(begin))) + " …";
}

// The same items by row, what each model wrote by column.
std::string answer_table(const JsonView& file) {
  std::vector<std::string> models;
  std::vector<std::string> keys;  // of the rows: task and item
  std::vector<std::vector<std::string>> rows;
  const auto place_of = [](std::vector<std::string>& names, std::string name) {
    const auto at = std::ranges::find(names, name);
    const auto place = static_cast<size_t>(at - names.begin());
    if (at == names.end()) names.push_back(std::move(name));
    return place;
  };
  for (const JsonView& sample : file.objects("answers")) {
    const std::string task = sample.text("task"), id = sample.text("id");
    const size_t m = place_of(models, sample.text("model")), r = place_of(keys, task + "\n" + id);
    if (r == rows.size()) {
      rows.push_back({escape_html(task), escape_html(id), kNone});
      if (sample.has("answers")) {
        rows[r][2] = shortened(fmt::format("{}", fmt::join(sample.texts("answers"), " / ")));
      }
    }
    rows[r].resize(std::max(rows[r].size(), m + 4), kNone);
    rows[r][m + 3] = shortened(sample.text("answer"));
  }
  if (rows.empty()) return "";
  std::vector<std::string> header = {"task", "item", "right answers"};
  for (const std::string& model : models) header.push_back(escape_html(model));
  for (auto& row : rows) row.resize(header.size(), kNone);
  return "<details><summary>What they wrote, the first items</summary>" + html_table(header, rows) +
         "</details>\n";
}

void add_section(Page& page, const std::vector<TaskModel>& models, const std::string& more = "") {
  if (models.empty()) return;
  std::vector<JsonView> all;
  for (const TaskModel& model : models) all.push_back(model.tasks);
  const std::vector<std::string> tasks = names_of(all);
  page.add_section("tasks", "What the models can do",
                   "Tasks of halo eval. ± is one standard error over the items; differences are of "
                   "the same items, with a standard error of their own.",
                   figure_table(models, tasks) + length_table(models, tasks) +
                       place_tables(models, tasks) + more);
}

}  // namespace

void add_tasks(Page& page, const RunFiles& run) {
  add_section(page, models_of(run.tasks.view()), answer_table(run.answers.view()));
}

// A model that both runs asked, to the same figures, is there once.
void compare_tasks(Page& page, const RunPair& runs) {
  std::vector<TaskModel> both = models_of(runs.a.tasks.view());
  const std::vector<TaskModel> of_a = both;
  for (TaskModel& model : both) model.name = runs.name_a + ": " + model.name;
  for (TaskModel& model : models_of(runs.b.tasks.view())) {
    const auto same = std::ranges::find(of_a, model.name, &TaskModel::name);
    const size_t at = static_cast<size_t>(same - of_a.begin());
    if (same != of_a.end() && same->tasks && model.tasks &&
        same->tasks.members() == model.tasks.members()) {
      both[at].name = model.name;
    } else {
      both.push_back({runs.name_b + ": " + model.name, model.tasks});
    }
  }
  add_section(page, both);
}

}  // namespace halo
