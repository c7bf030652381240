// What the models can do: RUN/tasks.json, which `halo eval --tasks ... --out RUN/tasks.json` wrote.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

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
bool has_length(std::string_view figure) {
  return is_length(figure.substr(0, figure.find('@')));
}

std::string value_of(const JsonView& figure) {
  return figure ? format_estimate(figure.number("value"), figure.number("stderr"), 3) : "–";
}
std::string difference_of(const JsonView& figure) {
  if (!figure || !figure.has("difference")) return "–";
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
      if (has_length(figure)) continue;
      std::vector<std::string>& row = rows.emplace_back();
      row = {escape_html(task), escape_html(figure), "–"};
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

}  // namespace

void add_tasks(Page& page, const RunFiles& run) {
  const std::vector<TaskModel> models = models_of(run.tasks.view());
  if (models.empty()) return;
  std::vector<JsonView> all;
  for (const TaskModel& model : models) all.push_back(model.tasks);
  const std::vector<std::string> tasks = names_of(all);
  page.add_section("tasks", "What the models can do",
                   "Tasks of halo eval. ± is one standard error over the items; differences are of "
                   "the same items, with a standard error of their own.",
                   figure_table(models, tasks) + length_table(models, tasks));
}

}  // namespace halo
