#include "halo/pipeline/recipe.h"

#include <algorithm>

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
  for (const Stage& stage : pipeline_stages()) {
    if (!stage.training || !is_wanted(stage, recipe)) continue;
    std::string section = stage.name;
    std::ranges::replace(section, '-', '_');
    check_recipe(stage.training->recipe(recipe), section);
  }
  check_recipe(recipe.select, path.string());
  check_recipe(recipe.scale, path.string());
  return recipe;
}

}  // namespace halo
