// Needles in a haystack, eight kinds.
#pragma once

#include "halo/eval/tasks/made/prompt.h"

namespace halo::made {

enum class Hay { kNoise, kEssays, kNeedles };
enum class Word { kWords, kNumbers, kUuids };

struct NeedleKind {
  Hay hay = Hay::kNoise;
  Word key = Word::kWords, value = Word::kNumbers;
  int64_t keys = 1;     // that are hidden
  int64_t values = 1;   // of each key
  int64_t queries = 1;  // keys that are asked for
  int64_t digits = 7;   // of a number
};

// At least keys * values units of hay: sentences of noise, words of essays, other needles. With
// another amount of hay the needles are the same. `essays` outlives the result; it may be empty
// where the hay is not made of them.
Compose needles(const NeedleKind& kind, const std::vector<std::string>& essays,
                const Random& random);

}  // namespace halo::made
