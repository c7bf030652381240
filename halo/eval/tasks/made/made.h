// Tasks that are made to a length, from a seed: RULER (Hsieh et al. 2024) in its published form,
// and ours. The hay is filled to the last unit that fits, where RULER's own code steps by tens.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "halo/eval/tasks/made/prompt.h"
#include "halo/eval/tasks/task.h"

namespace halo::made {

struct MadeArgs {
  std::filesystem::path data;    // of essays and SQuAD, where a task needs them
  std::vector<int64_t> lengths;  // tokens of prompt and answer
  int64_t items = 0;             // of each length
  uint64_t seed = 0;
};

std::vector<std::string> ruler_names();
std::vector<std::string> ruler2_names();  // RULER v2, its basic levels, with SQuAD's passages
std::vector<std::string> own_names();

// An item's figure is named by its length, "4096": the share of the answers that the text has in
// it, whatever the case, or whether any of them is. Tasks that sweep a place have a second one,
// "4096@0.5".
std::vector<TaskItem> make_items(const std::string& name, const MadeArgs& args,
                                 const CountTokens& count_tokens);

}  // namespace halo::made
