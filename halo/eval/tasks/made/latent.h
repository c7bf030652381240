// A needle that shares no word with its question: only who knows where a landmark stands finds it.
#pragma once

#include "halo/eval/tasks/made/prompt.h"

namespace halo::made {

// Four people live beside landmarks of four cities; who has been to one of the cities? `essays`
// outlives the result.
Compose latent_needle(const std::vector<std::string>& essays, const Random& random);

}  // namespace halo::made
