// Which words are frequent: of a numbered list, and of a coded text.
#pragma once

#include "halo/eval/tasks/made/prompt.h"

namespace halo::made {

// Ten words stand in the list 30 times each, `hay` others 3 times (under 4,096 tokens 6 times and
// once), behind a solved example. `vocabulary` are distinct words and outlive the result.
Compose common_words(const std::vector<std::string>& vocabulary, int64_t length,
                     const Random& random);

// `hay` draws of coded words by a zeta distribution with exponent 2, the likeliest being dots; the
// three after it are asked for.
Compose frequent_words(int64_t length, const Random& random);
// So much hay that the three differ.
inline constexpr int64_t kLeastFrequentHay = 100;

}  // namespace halo::made
