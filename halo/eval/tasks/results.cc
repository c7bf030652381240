#include "halo/eval/tasks/results.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "halo/base/check.h"
#include "halo/eval/tasks/text.h"

namespace halo {
namespace {

// Items are drawn one by one.
Estimate mean_of(const std::vector<double>& values) {
  std::vector<int64_t> clusters(values.size());
  std::iota(clusters.begin(), clusters.end(), 0);
  return clustered_mean(values, clusters);
}

const FigureResult* find_figure(const std::vector<TaskResult>& tasks, const std::string& task,
                                const std::string& figure) {
  for (const TaskResult& result : tasks) {
    if (result.task != task) continue;
    for (const FigureResult& f : result.figures) {
      if (f.name == figure) return &f;
    }
  }
  return nullptr;
}

// Task and figure, in the order in which models first have them; the figures of a task together.
std::vector<std::pair<std::string, std::string>> all_figures(
    const std::vector<ModelResult>& models) {
  std::vector<std::string> tasks;
  std::vector<std::pair<std::string, std::string>> all;
  const auto each = [&](const auto& use) {
    for (const ModelResult& model : models) {
      for (const TaskResult& task : model.tasks) use(task);
    }
  };
  each([&](const TaskResult& task) {
    if (std::ranges::find(tasks, task.task) == tasks.end()) tasks.push_back(task.task);
  });
  for (const std::string& name : tasks) {
    each([&](const TaskResult& task) {
      if (task.task != name) return;
      for (const FigureResult& figure : task.figures) {
        const std::pair pair(name, figure.name);
        if (std::ranges::find(all, pair) == all.end()) all.push_back(pair);
      }
    });
  }
  return all;
}

std::string format_value(double value, double error) {
  return std::isnan(error) ? fmt::format("{:.4f}", value)
                           : fmt::format("{:.4f} ± {:.4f}", value, error);
}

// Padded to `width` characters on a terminal: ± has two bytes.
std::string cell(const std::string& text, size_t width) {
  const auto characters = static_cast<size_t>(num_characters(text));
  return text + std::string(width > characters ? width - characters : 0, ' ');
}

}  // namespace

TaskResult summarise(const std::string& task, const std::vector<std::string>& ids,
                     const std::vector<Outcome>& outcomes) {
  HALO_CHECK(ids.size() == outcomes.size(), "{}: {} items, {} outcomes", task, ids.size(),
             outcomes.size());
  TaskResult result{task, {}};
  std::vector<Figure::Mean> means;
  for (size_t i = 0; i < ids.size(); ++i) {
    for (const Figure& figure : outcomes[i].figures) {
      auto at = std::ranges::find(result.figures, figure.name, &FigureResult::name);
      if (at == result.figures.end()) {
        at = result.figures.insert(at, FigureResult{figure.name, {}, {}, {}});
        means.push_back(figure.mean);
      }
      at->ids.push_back(ids[i]);
      at->parts.push_back(figure.value);
    }
  }
  for (size_t f = 0; f < means.size(); ++f) {
    FigureResult& figure = result.figures[f];
    figure.estimate = mean_of(figure.parts);
    if (means[f] == Figure::Mean::kPlain) continue;
    const double value = std::exp(figure.estimate.mean);
    for (double& part : figure.parts) part *= value;
    figure.estimate.mean = value;
    figure.estimate.standard_error *= value;
  }
  return result;
}

Estimate paired_difference(const FigureResult& a, const FigureResult& b) {
  if (a.ids != b.ids) {
    throw_error("{}: the models were asked different items, so they cannot be paired", a.name);
  }
  std::vector<double> differences(a.parts.size());
  std::ranges::transform(a.parts, b.parts, differences.begin(), std::minus<>());
  Estimate difference = mean_of(differences);
  difference.mean = a.estimate.mean - b.estimate.mean;
  return difference;
}

json::object results_to_json(const std::vector<ModelResult>& models) {
  json::array list;
  for (const ModelResult& model : models) {
    json::object tasks;
    for (const TaskResult& task : model.tasks) {
      json::object& figures = tasks[task.task].emplace_object();
      for (const FigureResult& figure : task.figures) {
        json::object values = {{"value", number_or_null(figure.estimate.mean)},
                               {"stderr", number_or_null(figure.estimate.standard_error)},
                               {"n", figure.estimate.n}};
        const FigureResult* other = find_figure(models.front().tasks, task.task, figure.name);
        if (&model != &models.front() && other && other->ids == figure.ids) {
          const Estimate difference = paired_difference(figure, *other);
          values["difference"] = number_or_null(difference.mean);
          values["difference_stderr"] = number_or_null(difference.standard_error);
        }
        figures[figure.name] = std::move(values);
      }
    }
    list.push_back(json::object{{"model", model.model}, {"tasks", std::move(tasks)}});
  }
  return {{"models", std::move(list)}};
}

std::string results_to_text(const std::vector<ModelResult>& models) {
  std::vector<std::vector<std::string>> rows(1);
  rows[0] = {"task", "figure", "n"};
  for (const ModelResult& model : models) {
    rows[0].push_back(model.model);
    if (&model != &models.front()) rows[0].emplace_back("difference to the first");
  }
  for (const auto& [task, figure] : all_figures(models)) {
    std::vector<std::string>& row = rows.emplace_back();
    row = {task, figure, ""};
    const FigureResult* first = find_figure(models.front().tasks, task, figure);
    for (const ModelResult& model : models) {
      const FigureResult* own = find_figure(model.tasks, task, figure);
      if (own) row[2] = std::to_string(own->estimate.n);
      row.push_back(own ? format_value(own->estimate.mean, own->estimate.standard_error) : "-");
      if (&model == &models.front()) continue;
      if (!own || !first || own->ids != first->ids) {
        row.emplace_back("-");
        continue;
      }
      const Estimate difference = paired_difference(*own, *first);
      row.push_back(format_value(difference.mean, difference.standard_error));
    }
  }
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) {
      widths[c] = std::max(widths[c], static_cast<size_t>(num_characters(row[c])));
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) line += cell(row[c], widths[c] + 2);
    line.resize(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace halo
