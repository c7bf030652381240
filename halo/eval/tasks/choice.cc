#include "halo/eval/tasks/choice.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/eval/tasks/text.h"

namespace halo {
namespace {

// The first of the largest, as the harness's argmax.
size_t largest(const std::vector<double>& values) {
  return std::ranges::max_element(values) - values.begin();
}

Outcome judge(const Answers& answers, const std::vector<double>& lengths, int64_t label) {
  std::vector<double> sums, means;
  for (size_t i = 0; i < answers.scores.size(); ++i) {
    sums.push_back(answers.scores[i].loglikelihood);
    if (!lengths.empty()) means.push_back(sums[i] / lengths[i]);
  }
  const size_t choice = largest(sums);
  Outcome outcome;
  outcome.figures = {{"acc", choice == static_cast<size_t>(label) ? 1.0 : 0.0}};
  outcome.sample = {{"loglikelihoods", json::value_from(sums)}, {"choice", choice}};
  if (!lengths.empty()) {
    const size_t by_length = largest(means);
    outcome.figures.push_back({"acc_norm", by_length == static_cast<size_t>(label) ? 1.0 : 0.0});
    outcome.sample["choice_norm"] = by_length;
  }
  outcome.sample["label"] = label;
  return outcome;
}

}  // namespace

TaskItem choice_item(const ItemLine& line) {
  TaskItem item{line.id()};
  const std::string context = line.text("context");
  const std::vector<std::string> choices = line.texts("choices");
  const int64_t label = line.integer("label", static_cast<int64_t>(choices.size()));
  std::vector<double> lengths;
  for (const std::string& choice : choices) {
    if (choice.empty()) throw_error("{}: a choice is empty", line.place());
    item.scored.push_back({context, " " + choice});
    lengths.push_back(static_cast<double>(num_characters(choice)));
  }
  item.solved.scored = context + " " + choices[label];
  item.judge = [lengths, label](const Answers& answers) { return judge(answers, lengths, label); };
  return item;
}

TaskItem winogrande_item(const ItemLine& line) {
  TaskItem item{line.id()};
  const std::string context = line.text("context");
  const std::vector<std::string> choices = line.texts("choices");
  const int64_t label = line.integer("label", static_cast<int64_t>(choices.size()));
  const size_t blank = context.find('_');
  if (blank == std::string::npos) throw_error("{}: 'context' has no '_'", line.place());
  const std::string rest = " " + std::string(stripped(context.substr(blank + 1)));
  for (const std::string& choice : choices) {
    item.scored.push_back({context.substr(0, blank) + choice, rest});
  }
  item.solved.scored = item.scored[label].prompt + rest;
  item.judge = [label](const Answers& answers) { return judge(answers, {}, label); };
  return item;
}

}  // namespace halo
