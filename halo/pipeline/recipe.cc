#include "halo/pipeline/recipe.h"

#include <algorithm>

#include "halo/pipeline/checks.h"
#include "halo/pipeline/stage.h"

namespace halo {

ContextSettings context_settings(const Recipe& recipe) {
  ContextSettings out{recipe.teacher, recipe.run, recipe.data, recipe.eval.held_out,
                      recipe.align.sequence_length};
  for (const Stage& stage : pipeline_stages()) {
    if (!stage.training || !is_wanted(stage, recipe)) continue;
    out.longest_row = std::max(out.longest_row, stage.training->recipe(recipe).sequence_length);
  }
  return out;
}

Recipe read_recipe(const std::filesystem::path& path, const std::vector<std::string>& set) {
  const auto recipe = read_settings_file<Recipe>(path, set);
  check_settings(recipe, path.string());
  return recipe;
}

}  // namespace halo
