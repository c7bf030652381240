// What needles are hidden in.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "halo/eval/tasks/made/prompt.h"

namespace halo::made {

inline constexpr const char* kNoise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

// The texts of DIR/essays.jsonl[.zst|.gz], "text" of each line, as words in a row.
std::vector<std::string> essay_words(const std::filesystem::path& directory);
// The sentences of the first `count` of the words, from the first again where they do not suffice.
std::vector<std::string> sentences_of(const std::vector<std::string>& words, int64_t count);
// Distinct words of small ASCII letters, three and more, in the order of their first use.
std::vector<std::string> plain_words(const std::vector<std::string>& words);

// The first `words` of the essays with needles between their sentences, at distinct ones of 40 even
// depths.
std::string hide_in_essays(const std::vector<std::string>& essays, int64_t words,
                           const std::vector<std::string>& needles, Draws& draws);

}  // namespace halo::made
