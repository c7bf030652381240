// The search of the logit scale (hypenet.md 2.4): needles beyond the training length first, loss on
// long documents among those that find as many, then the largest a.
#include "halo/stages/scale.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/eval/needle.h"
#include "halo/eval/tasks/runner.h"
#include "halo/stages/scale_rule.h"

namespace halo {
namespace {

struct Candidate {
  std::string name;  // "none", "constant 1.5", "500"
  LogitScale scale;
  double a = 0;  // as in ScaleFigures
  std::vector<NeedleItem> needles = {};
  std::vector<TaskResult> tasks = {};
  TextScores text = {};
  // Of needles and tasks, and of text, beyond the training length.
  Estimate accuracy = {}, loss = {};
};

Candidate log_candidate(double a) {
  return {fmt::format("{:.0f}", a), {LogitScale::Kind::kLogPosition, 1, a}, a};
}

std::vector<Candidate> make_candidates(const ScaleRecipe& recipe) {
  std::vector<Candidate> out;
  out.push_back({"none", {}, std::numeric_limits<double>::infinity()});
  out.push_back({"constant 1.5", {LogitScale::Kind::kConstant, 1.5, 0}, 0});
  for (double a : recipe.candidates) out.push_back(log_candidate(a));
  return out;
}

ScaleFigures figures_of(const Candidate& c) {
  return {c.a, c.accuracy.mean, c.accuracy.standard_error, c.loss.mean};
}

size_t choose(const std::vector<Candidate>& all) {
  std::vector<ScaleFigures> figures;
  for (const Candidate& c : all) figures.push_back(figures_of(c));
  return choose_scale(figures);
}

// What to try next: between the best a and its neighbours.
std::vector<double> next_values(const std::vector<Candidate>& all) {
  std::vector<ScaleFigures> figures;
  std::vector<double> tried;
  for (const Candidate& c : all) {
    if (c.scale.kind != LogitScale::Kind::kLogPosition) continue;
    figures.push_back(figures_of(c));
    tried.push_back(c.a);
  }
  return refined(tried, tried[choose_scale(figures)]);
}

// The mean of independent estimates.
Estimate mean_of(const std::vector<Estimate>& parts) {
  Estimate mean;
  double variance = 0;
  const auto n = static_cast<double>(parts.size());
  for (const Estimate& part : parts) {
    mean.mean += part.mean / n;
    variance += part.standard_error * part.standard_error / (n * n);
    mean.n += part.n;
    mean.clusters += part.clusters;
  }
  mean.standard_error = std::sqrt(variance);
  return mean;
}

// The figure of each length of tasks that are made to lengths.
std::vector<Estimate> by_length(const std::vector<TaskResult>& tasks,
                                const std::vector<int64_t>& lengths) {
  std::vector<Estimate> out;
  for (const TaskResult& task : tasks) {
    for (const int64_t length : lengths) {
      const auto figure =
          std::ranges::find(task.figures, std::to_string(length), &FigureResult::name);
      if (figure != task.figures.end()) out.push_back(figure->estimate);
    }
  }
  return out;
}

std::vector<NeedleItem> items_beyond(const std::vector<NeedleItem>& items, int64_t length) {
  std::vector<NeedleItem> beyond;
  std::ranges::copy_if(items, std::back_inserter(beyond),
                       [&](const NeedleItem& item) { return item.length > length; });
  return beyond;
}

// What a candidate was measured to be, as ranks tell each other; of tasks what the choice and its
// record read.
std::string pack_measured(const Candidate& c) {
  Packer packed;
  pack(c.needles, packed);
  pack(c.text, packed);
  packed.add(std::ssize(c.tasks));
  for (const TaskResult& task : c.tasks) {
    packed.add(task.task).add(std::ssize(task.figures));
    for (const FigureResult& figure : task.figures) {
      const Estimate& estimate = figure.estimate;
      packed.add(figure.name).add(estimate.mean).add(estimate.standard_error);
      packed.add(estimate.n).add(estimate.clusters);
    }
  }
  return packed.bytes();
}

void unpack_measured(const std::string& bytes, const TextBatches& text, Candidate& c) {
  Unpacker packed(bytes);
  c.needles = unpack_needles(packed);
  c.text = unpack_text(packed, text, nullptr);
  c.tasks.resize(packed.integer());
  for (TaskResult& task : c.tasks) {
    task.task = packed.text();
    task.figures = std::vector<FigureResult>(packed.integer());
    for (FigureResult& figure : task.figures) {
      figure.name = packed.text();
      Estimate& estimate = figure.estimate;
      estimate.mean = packed.number();
      estimate.standard_error = packed.number();
      estimate.n = packed.integer();
      estimate.clusters = packed.integer();
    }
  }
}

json::object to_json(const Candidate& c, int64_t training_length) {
  json::object tasks;
  for (const TaskResult& task : c.tasks) {
    json::object& figures = tasks[task.task].emplace_object();
    for (const FigureResult& figure : task.figures) {
      figures[figure.name] = estimate_to_json("accuracy", figure.estimate);
    }
  }
  return {{"name", c.name},
          {"needle", needles_to_json(c.needles)},
          {"tasks", std::move(tasks)},
          {"accuracy", number_or_null(c.accuracy.mean)},
          {"accuracy_stderr", number_or_null(c.accuracy.standard_error)},
          {"loss_beyond_training_length", number_or_null(c.loss.mean)},
          {"loss_stderr", number_or_null(c.loss.standard_error)},
          {"training_length", training_length}};
}

}  // namespace

void check_recipe(const ScaleRecipe& recipe, const std::string& file) {
  if (recipe.candidates.empty()) throw_error("{}: scale.candidates must not be empty", file);
  for (double a : recipe.candidates) {
    if (a != std::floor(a)) throw_error("{}: scale.candidates: {} is not an integer", file, a);
  }
  for (const std::string& task : expand_tasks(recipe.tasks)) {
    if (is_made_to_length(task)) continue;
    throw_error("{}: scale.tasks: {} is not made to a length, so it says nothing of the scale",
                file, task);
  }
}

int64_t training_length(const ScaleRecipe& recipe, const StageInputs& inputs) {
  return recipe.training_length > 0 ? recipe.training_length : inputs.training_length();
}

HeldOutArgs scale_text(const ScaleRecipe& recipe, const std::vector<int64_t>& lengths,
                       int64_t training_length) {
  HeldOutArgs args;
  args.part = TextPart::kSearch;
  args.rows = TextRows::kStream;
  args.row_length = std::min(std::ranges::max(lengths), 4 * training_length);
  args.max_tokens = recipe.documents * args.row_length;
  return args;
}

void run_scale(const ScaleRecipe& recipe, const StageContext& context, const StageArgs& args) {
  at::NoGradGuard no_grad;
  Model model = context.load_student(args.inputs[0], context.machine().device);
  std::vector<Candidate> candidates = make_candidates(recipe);
  const int64_t training_length = halo::training_length(recipe, context);
  const std::vector<int64_t> lengths = lengths_beyond(recipe.lengths, training_length);
  const int64_t longest = std::ranges::max(lengths);
  std::vector<int64_t> beyond;
  std::ranges::copy_if(lengths, std::back_inserter(beyond),
                       [&](int64_t length) { return length > training_length; });

  const NeedleArgs needle_args{.lengths = lengths,
                               .haystacks = recipe.haystacks,
                               .depths = even_depths(recipe.questions),
                               .pool = NeedlePool::kSearch,
                               .seed = Random(context.seed(), "scale.needles").bits(0)};
  const std::vector<NeedleTask> needle_tasks =
      make_needles(context.needles(), context.held_out(), needle_args);
  const TextBatches text =
      context.held_out_batches(scale_text(recipe, lengths, training_length), training_length);
  const LanguageModel reader(model, context.teacher_directory(), context.machine().kernels);
  std::vector<Task> tasks;
  for (const std::string& name : expand_tasks(recipe.tasks)) {
    const TaskArgs task_args{
        {}, recipe.data, beyond, recipe.items, 0, Random(context.seed(), "scale.tasks").bits(0)};
    tasks.push_back(make_task(name, task_args, reader));
  }

  const auto measure = [&](Candidate c) {
    const auto weights =
        std::make_shared<const DecoderWeights>(with_logit_scale(model.weights, c.scale));
    EngineOptions options;
    options.kernels = context.machine().kernels;
    Engine engine(weights, options);
    Progress needles(c.name + ": needles", std::ssize(needle_tasks));
    c.needles = score_needles(engine, needle_tasks,
                              [&](size_t done) { needles.update(static_cast<int64_t>(done)); });
    LanguageModel asked(reader, weights, reader.options());
    for (const Task& task : tasks) {
      Progress items(c.name + ": " + task.name, std::ssize(task.items));
      c.tasks.push_back(run_task(
          asked, task, nullptr, [](const TaskItem&, const Outcome&) {},
          [&](size_t done) { items.update(static_cast<int64_t>(done)); }));
    }
    c.text = score_text(*weights, text);
    return pack_measured(c);
  };
  Progress progress(args.name, std::ssize(candidates) + 2 * recipe.refine);
  size_t measured = 0;
  const auto measure_new = [&] {
    const size_t before = measured;
    const std::vector<std::string> results =
        deal(context.ranks(), std::ssize(candidates) - static_cast<int64_t>(before),
             [&](int64_t i) { return measure(candidates[before + i]); });
    for (; measured < candidates.size(); ++measured) {
      Candidate& c = candidates[measured];
      unpack_measured(results[measured - before], text, c);
      std::vector<Estimate> found = by_length(c.tasks, beyond);
      found.push_back(needle_accuracy(items_beyond(c.needles, training_length)));
      c.accuracy = mean_of(found);
      c.loss = mean_loss(c.text, training_length);
      progress.update(
          static_cast<int64_t>(measured) + 1,
          fmt::format("{}: found {:.2f}, loss {:.3f}", c.name, c.accuracy.mean, c.loss.mean));
    }
  };
  measure_new();
  for (int64_t round = 0; round < recipe.refine; ++round) {
    for (const double a : next_values(candidates)) candidates.push_back(log_candidate(a));
    measure_new();
  }
  const size_t chosen = choose(candidates);
  progress.finish(fmt::format("chosen: {}", candidates[chosen].name));
  if (!context.ranks().is_first()) return;

  json::array curve;
  for (const Candidate& c : candidates) curve.push_back(to_json(c, training_length));
  const json::object scale_figures{
      {"rule", kScaleRule}, {"chosen", candidates[chosen].name}, {"candidates", curve}};
  write_json(args.out / "scale.json", scale_figures);
  model.config.attn_logits_scaling = candidates[chosen].scale;
  commit_directory(args.out / "step-0", [&](const fs::path& directory) {
    // The other stages read no lengths but their own, and say nothing of those of all.
    context.save(directory, with_training_length(model.config, training_length), *model.store);
  });
  const auto at_longest = [&](const Candidate& c) {
    return needle_accuracy(items_of_length(c.needles, longest)).mean;
  };
  finish_stage(args,
               {fmt::format("needle accuracy at {} tokens", longest),
                at_longest(candidates[chosen]), Gate::Kind::kAtLeast},
               {{"chosen", candidates[chosen].name},
                {"accuracy_unscaled", at_longest(candidates.front())},
                {"tokens", 0}});
}

}  // namespace halo
