// Two runs beside each other: what a comparison's sections show.
#pragma once

#include <map>
#include <string>

#include "halo/report/page.h"
#include "halo/report/run_files.h"

namespace halo {

struct RunPair {
  RunFiles a, b;
  std::string name_a, name_b;  // which differ
};

// Losses, needles, layers, memory, time: both, and what changed.
void compare_figures(Page& page, const RunPair& runs);
void compare_needles(Page& page, const RunPair& runs);
// Tasks of `halo eval` that either run was asked.
void compare_tasks(Page& page, const RunPair& runs);
void compare_stages(Page& page, const RunPair& runs);
void compare_training(Page& page, const RunPair& runs);
// Settings of the recipes and facts of the machines that differ.
void compare_settings(Page& page, const RunPair& runs);

// The keys of a TOML text ("distill.tokens") and their values as TOML. An Error that names `file`
// where it is none.
std::map<std::string, std::string> flat_toml(const std::string& text, const std::string& file);

}  // namespace halo
