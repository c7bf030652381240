// A setting's word becomes an enum.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/fields.h"

namespace halo {

// The value that `known` gives for `word`; an Error that names `key` and the nearest known word.
template <class T>
T choice(const std::string& key, const std::string& word,
         const std::vector<std::pair<std::string, T>>& known) {
  std::vector<std::string> words;
  for (const auto& [name, value] : known) {
    if (name == word) return value;
    words.push_back(name);
  }
  throw_error("{} = '{}' is unknown; did you mean '{}'?", key, word, nearest(word, words));
}

}  // namespace halo
