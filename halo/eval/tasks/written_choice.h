// Multiple choice in both modes: by log-likelihood, and by writing. A model that lost little by the
// first can have lost much by the second.
#pragma once

#include "halo/eval/tasks/item_file.h"
#include "halo/eval/tasks/task.h"

namespace halo {

// `by_score` is the line's item of choice.h. Its choices are also listed behind its context as
// "A. ...", "B. ..." and what the model writes behind "Answer:" is read as one of them. Figures
// acc, acc_written and gap, the difference of the two.
TaskItem written_choice_item(TaskItem by_score, const ItemLine& line);

// Which choice an answer means: the letter it begins with, or else the longest choice whose text it
// begins with; -1: none.
int64_t read_choice(std::string_view answer, const std::vector<std::string>& choices);

}  // namespace halo
