// A world smaller still: two layers, width 32, a step of one row, so that a whole conversion takes
// half a second.
#pragma once

#include <string>
#include <vector>

#include "halo/pipeline/recipe.h"
#include "tests/system/world.h"

namespace halo::system_test {

class TinyWorld {
 public:
  TinyWorld();

  fs::path path(const std::string& name) const { return root_ / name; }
  Recipe recipe(const Words& set = {}) const;
  // The teacher or the training text becomes the other one, or is written anew as it is.
  void touch(bool teacher, size_t which);
  std::string versions() const;

 private:
  fs::path shard(const std::string& name) const;

  test::Folder root_;
  std::vector<std::string> teachers_, train_;
  size_t teacher_ = 1, text_ = 0;
};

}  // namespace halo::system_test
