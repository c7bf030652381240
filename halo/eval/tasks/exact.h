// Tasks of ours with exact answers, and what long texts are made of. Items are made, whatever the
// model.
#pragma once

#include <filesystem>

#include "halo/eval/tasks/task.h"

namespace halo {

// Sums of two numbers of 2 and of 4 digits in turn, behind three solved ones. Figures exact_match
// and the same by digits, "exact_match@4".
std::vector<TaskItem> addition_items(int64_t count, uint64_t seed);

// Lists of 4, 16 and 64 words in turn to be written again, behind a solved one. Figures as above by
// words, and copied: the share of the words before the first that is wrong.
std::vector<TaskItem> copying_items(int64_t count, uint64_t seed);

// The first 60 words of each essay of DIR/essays.jsonl, continued by 1,024 tokens. Figures
// distinct_4: the share of different ones among all runs of four words; loop: the text ends in a
// passage of 64 words at most, three times over.
std::vector<TaskItem> long_writing_items(const std::filesystem::path& directory, int64_t limit);

bool ends_in_loop(const std::vector<std::string>& words);
double distinct_runs(const std::vector<std::string>& words,
                     size_t length);  // 1 where there is none

}  // namespace halo
