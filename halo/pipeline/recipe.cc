#include "halo/pipeline/recipe.h"

#include <algorithm>
#include <functional>

#include "halo/pipeline/checks.h"
#include "halo/pipeline/stage.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

// Calls `change` for every path of the recipe.
void for_each_path(Recipe& recipe, const std::function<void(std::string&)>& change) {
  const Settings all = settings_of(recipe);
  for (const Setting& setting : all.all()) {
    if (!names_files(setting.key)) continue;
    if (const auto* path = std::get_if<std::string*>(&setting.value)) change(**path);
    if (const auto* paths = std::get_if<std::vector<std::string>*>(&setting.value)) {
      std::ranges::for_each(**paths, change);
    }
  }
}

bool is_there(const fs::path& path) {
  const bool is_glob = path.filename().string().find_first_of("*?[") != std::string::npos;
  std::error_code error;
  return fs::exists(is_glob ? path.parent_path() : path, error);
}

}  // namespace

bool names_files(const std::string& key) {
  return key == "teacher" || key == "data.shards" || key == "data.haystack" ||
         key == "eval.held_out" || key == "select.data" || key == "scale.data";
}

Recipe with_absolute_paths(Recipe recipe, const fs::path& base) {
  for_each_path(recipe, [&](std::string& path) {
    if (path.empty()) return;
    const bool of_base = !base.empty() && is_there(base / path);
    path = fs::absolute(of_base ? base / path : fs::path(path)).lexically_normal().string();
  });
  return recipe;
}

void write_run_recipe(const fs::path& run, Recipe recipe) {
  for_each_path(recipe, [&](std::string& path) {
    const fs::path inside = fs::path(path).lexically_relative(fs::absolute(run).lexically_normal());
    if (!inside.empty() && *inside.begin() != "..") path = inside.string();
  });
  write_file(run / kResolvedRecipe, to_toml(recipe));
}

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
  auto recipe = read_settings_file<Recipe>(path, {});
  if (path.filename() == kResolvedRecipe) {
    recipe = with_absolute_paths(std::move(recipe), path.parent_path());
  }
  for (const std::string& assignment : set) set_setting(recipe, assignment);
  check_settings(recipe, path.string());
  return recipe;
}

}  // namespace halo
