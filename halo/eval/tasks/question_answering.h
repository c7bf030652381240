// Questions answered in writing.
#pragma once

#include "halo/eval/tasks/item_file.h"
#include "halo/eval/tasks/task.h"

namespace halo {

// {"id", "context", "question", "answers"}: "CONTEXT\nQuestion: QUESTION\nAnswer:", the context and
// its line left out where it is empty; greedy, 48 tokens at most, cut at the line's end. Figures
// contains, f1 and exact_match, the best over the answers.
TaskItem question_item(const ItemLine& line);

// {"id", "text", "value"}, the files of SWDE and FDA: a document that ends with the name of
// what is asked for. Written and cut as above. Figure contains.
TaskItem extraction_item(const ItemLine& line);

}  // namespace halo
