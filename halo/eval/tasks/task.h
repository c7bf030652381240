// A task as a value: items, each with what is asked of a model and what its answers are worth.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "halo/base/json.h"
#include "halo/eval/language_model.h"
#include "halo/runtime/deal.h"

namespace halo {

// A figure of one item. Over items, its mean is reported, or exp(mean).
struct Figure {
  enum class Mean { kPlain, kExp };
  std::string name;
  double value = 0;
  Mean mean = Mean::kPlain;
};

struct Answers {
  std::vector<Score> scores;       // of TaskItem::scored
  std::vector<std::string> texts;  // of TaskItem::generated
};

// As ranks tell them each other, and again.
void pack(const Answers& answers, Packer& to);
Answers unpack_answers(Unpacker& from);

struct Outcome {
  std::vector<Figure> figures;
  json::object sample;  // what --log-samples writes of it beside model, task and id
};

// An item with its right answer, as it stands in front of others (few-shot).
struct Example {
  std::string scored, generated;  // of TaskItem's scored prompts, of its generated ones
};

struct TaskItem {
  std::string id;
  std::vector<ScoreRequest> scored;
  std::vector<GenerateRequest> generated;
  std::function<Outcome(const Answers&)> judge;
  Example solved;
};

struct Task {
  std::string name;
  std::vector<TaskItem> items;
};

}  // namespace halo
