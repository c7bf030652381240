#include "halo/stages/task_sweep.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "halo/base/progress.h"
#include "halo/eval/tasks/catalogue.h"
#include "halo/stages/selection_rule.h"

namespace halo {
namespace {

std::string figure_name(const Outcome& outcome) {
  for (const char* name : {"contains", "acc_norm", "acc"}) {
    if (std::ranges::find(outcome.figures, name, &Figure::name) != outcome.figures.end()) {
      return name;
    }
  }
  return outcome.figures.front().name;
}

double figure_of(const Outcome& outcome, const std::string& name) {
  const auto figure = std::ranges::find(outcome.figures, name, &Figure::name);
  HALO_CHECK(figure != outcome.figures.end(), "an item has no figure '{}'", name);
  return figure->value;
}

// A choice task's items have several requests that are scored; nobody guesses a text.
double chance_of(const Task& task) {
  double sum = 0;
  for (const TaskItem& item : task.items) {
    if (item.scored.size() > 1) sum += 1 / static_cast<double>(item.scored.size());
  }
  return sum / static_cast<double>(task.items.size());
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double standard_error(const std::vector<double>& values) {
  const double m = mean(values);
  double sum = 0;
  for (const double v : values) sum += (v - m) * (v - m);
  const auto n = static_cast<double>(values.size());
  return n > 1 ? std::sqrt(sum / (n - 1) / n) : std::nan("");
}

// How often each of n items was drawn.
std::vector<double> draw_items(uint64_t seed, const std::string& task, int64_t draw, int64_t n) {
  const Random random(seed, "select.bootstrap " + task, static_cast<uint64_t>(draw));
  std::vector<double> times(static_cast<size_t>(n), 0);
  for (int64_t i = 0; i < n; ++i) ++times[random.below(static_cast<uint64_t>(i), n)];
  return times;
}

// The mean of tasks, by layer.
std::vector<double> mean_of_tasks(const std::vector<SweptTask>& tasks, uint64_t seed,
                                  int64_t draw) {
  std::vector<double> sums;
  for (const SweptTask& task : tasks) {
    const std::vector<double> times =
        draw < 0 ? std::vector<double>{}
                 : draw_items(seed, task.name, draw, std::ssize(task.items.front()));
    std::vector<double> means = task.means(times);
    means.pop_back();  // the teacher takes no part
    if (sums.empty()) sums.resize(means.size());
    for (size_t i = 0; i < means.size(); ++i) {
      sums[i] += means[i] / static_cast<double>(tasks.size());
    }
  }
  return sums;
}

void check_teacher_does(const SweptTask& task) {
  const std::vector<double>& own = task.items.back();
  if (above_chance(mean(own), standard_error(own), task.chance)) return;
  throw_error(
      "select: the teacher has {:.3f} +- {:.3f} of {} ({} items), by guessing {:.3f}, so "
      "select.rule = \"halo\" would choose by noise; leave this task out of select.recall or "
      "select.commonsense, or give it more items (select.items)",
      mean(own), standard_error(own), task.name, own.size(), task.chance);
}

}  // namespace

std::vector<double> SweptTask::means(const std::vector<double>& times) const {
  std::vector<double> out;
  for (const std::vector<double>& of_model : items) {
    double sum = 0;
    for (size_t i = 0; i < of_model.size(); ++i) {
      sum += (times.empty() ? 1 : times[i]) * of_model[i];
    }
    out.push_back(sum / static_cast<double>(of_model.size()));
  }
  return out;
}

std::vector<double> TaskSweep::scores(uint64_t seed, int64_t draw) const {
  return halo_scores(mean_of_tasks(recall, seed, draw), mean_of_tasks(commonsense, seed, draw));
}

std::string TaskSweep::csv() const {
  std::string text = "layer";
  std::vector<std::vector<double>> columns;
  for (const auto* tasks : {&recall, &commonsense}) {
    for (const SweptTask& task : *tasks) {
      text += "," + task.name;
      columns.push_back(task.means({}));
    }
  }
  const size_t layers = columns.front().size() - 1;
  const auto row = [&](const std::string& name, size_t model) {
    text += "\n" + name;
    for (const auto& column : columns) text += fmt::format(",{}", column[model]);
  };
  row("original", layers);
  for (size_t i = 0; i < layers; ++i) row(std::to_string(i), i);
  return text + "\n";
}

json::object TaskSweep::to_json() const {
  json::array list;
  for (const auto* tasks : {&recall, &commonsense}) {
    for (const SweptTask& task : *tasks) {
      std::vector<double> means = task.means({});
      const double teacher = means.back();
      means.pop_back();
      list.push_back(
          json::object{{"name", task.name},
                       {"kind", tasks == &recall ? "recall" : "commonsense"},
                       {"items", task.items.front().size()},
                       {"chance", task.chance},
                       {"teacher", teacher},
                       {"teacher_stderr", number_or_null(standard_error(task.items.back()))},
                       {"swapped", json::value_from(means)}});
    }
  }
  return {{"tasks", std::move(list)},
          {"cost",
           {{"flops", cost.flops()},
            {"flops_of_whole_evaluations", cost.whole_flops()},
            {"layer_flops", cost.layer_flops},
            {"layer_flops_of_whole_evaluations", cost.whole_layer_flops},
            {"seconds", cost.seconds},
            {"seconds_of_whole_evaluations", cost.whole_seconds}}}};
}

TaskSweep sweep_tasks(const SelectRecipe& recipe, const StageContext& context,
                      const DecoderWeights& aligned) {
  const Model& teacher = context.teacher();
  const LanguageModel model(teacher, context.teacher_directory(), context.machine().kernels);
  std::vector<Mixer> mixers;
  for (const LayerWeights& layer : aligned.layers) mixers.push_back(layer.mixer);
  LayerSweep sweep(model, std::make_shared<const DecoderWeights>(teacher.weights),
                   std::move(mixers));
  const TaskArgs args{{},           recipe.data, {needle_length(recipe, context)},
                      recipe.items, 0,           Random(context.seed(), "select.tasks").bits(0)};
  TaskSweep out;
  const auto run = [&](const std::vector<std::string>& names, std::vector<SweptTask>& swept) {
    for (const std::string& name : expand_tasks(names)) {
      const Task task = together(context.ranks(), [&] { return make_task(name, args, model); });
      Progress progress("select: " + name, std::ssize(task.items));
      const auto outcomes = sweep.run(
          task, [&](size_t done) { progress.update(static_cast<int64_t>(done), "items"); },
          context.ranks());
      SweptTask& scores = swept.emplace_back(SweptTask{name, chance_of(task), {}});
      const std::string figure = figure_name(outcomes.front().front());
      for (const auto& of_model : outcomes) {
        std::vector<double>& values = scores.items.emplace_back();
        for (const Outcome& outcome : of_model) values.push_back(figure_of(outcome, figure));
      }
      together(context.ranks(), [&] { check_teacher_does(scores); });
    }
  };
  run(recipe.recall, out.recall);
  run(recipe.commonsense, out.commonsense);
  out.cost = sweep.cost();
  return out;
}

std::vector<fs::path> select_task_files(const SelectRecipe& recipe) {
  std::vector<std::string> names = recipe.recall;
  names.insert(names.end(), recipe.commonsense.begin(), recipe.commonsense.end());
  return task_files(names, recipe.data);
}

}  // namespace halo
