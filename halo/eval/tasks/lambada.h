// LAMBADA: the last word of a passage that only its whole text gives away.
#pragma once

#include "halo/eval/tasks/item_file.h"
#include "halo/eval/tasks/task.h"

namespace halo {

// {"id", "text"}: the last word behind a space is the target. Figures acc (greedy decoding would
// write it) and perplexity, of the word.
TaskItem lambada_item(const ItemLine& line);

}  // namespace halo
