// What somebody probably meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace halo {

// The candidate nearest to `word` by edit distance, for "unknown key 'x'; did you mean 'y'?".
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace halo
