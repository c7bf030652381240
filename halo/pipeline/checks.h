// What a stage or the evaluation would refuse, found before any work and said by the recipe's key.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "halo/pipeline/stage.h"
#include "halo/runtime/machine.h"

namespace halo {

// Of the recipe alone; `file` is where it comes from.
void check_settings(const Recipe& recipe, const std::string& file);

// `convert` needs all that the recipe names; `plan` does with the teacher's config.json.
enum class Missing { kRefused, kNoted };

// Of what the recipe names: the teacher's configuration and tokenizer, shards, held-out text.
// Returns a sentence for everything that is not there and therefore was not looked at (kNoted).
// Loads no weights and opens no device.
std::vector<std::string> check_ahead(const Recipe& recipe, Missing missing,
                                     std::span<const Stage> stages = pipeline_stages());

// What a recipe asks for and the device, once it is open, does not have.
void check_device(const Recipe& recipe, const Machine& machine);

// A sentence for every stage that reads an entry of data.shards more than four times over; it is
// allowed. To there repeated text serves nearly as well as new (Muennighoff et al., arXiv
// 2305.16264). The shards must be there; check_ahead warns of it.
std::vector<std::string> repeated_text(const Recipe& recipe,
                                       std::span<const Stage> stages = pipeline_stages());

}  // namespace halo
