// Instructions whose following a program can check, put to a model through its chat template.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "halo/eval/tasks/made/prompt.h"
#include "halo/eval/tasks/task.h"

namespace halo {

// What an answer has to be like.
struct Constraint {
  std::string kind;                             // "bullets"
  std::string text;                             // a sentence, for the model
  std::function<bool(std::string_view)> holds;  // of an answer that is not empty
};

// Kinds in groups: those of one group exclude each other, those of different groups never do.
const std::vector<std::vector<std::string>>& constraint_groups();
// One of a kind, its numbers and words drawn.
Constraint draw_constraint(std::string_view kind, made::Draws& draws);

// Items ask for a short text about something with one, two or three constraints in turn. `as_chat`
// makes a prompt of what a user says. Figures followed: all constraints hold; constraints: the
// share that does; and of each kind, "followed@bullets".
std::vector<TaskItem> instruction_items(
    int64_t count, uint64_t seed, const std::function<std::string(const std::string&)>& as_chat);

}  // namespace halo
