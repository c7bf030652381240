// Which of several that look alike? And one that looks like nothing else.
#pragma once

#include "halo/eval/tasks/made/prompt.h"

namespace halo::made {

// Notes of random words about random things; `alike` of them are about the same, and one of these
// is to be repeated word for word: the first, the second, ... `hay` other notes stand between.
Compose notes(int64_t alike, const Random& random);

// A number in noise at a depth of 0 (the beginning) to 1.
Compose passkey(double depth, const Random& random);

}  // namespace halo::made
