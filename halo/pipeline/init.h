// A recipe for a given model, text and machine: a start that `halo plan` accepts and people edit.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "halo/pipeline/fit.h"

namespace halo {

struct InitArgs {
  std::filesystem::path teacher;  // model directory; only its config.json is read
  std::vector<std::string> data;  // token shards (files, folders, globs), or text
  RunRecipe run;                  // the device and type to train with
  Capacity capacity;              // of that device
};

struct InitialRecipe {
  std::string text;                // TOML with a comment on each choice
  std::vector<std::string> notes;  // what is left for the user to do, a line each
};

// The published settings (hypenet.md 2.2) carried over to the teacher's size: tokens in proportion
// to its parameters, rates between those that were measured, lengths by the positions it has seen,
// rows at a time by memory.
InitialRecipe make_recipe(const InitArgs& args);

}  // namespace halo
