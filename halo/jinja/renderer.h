// Runs a parsed template.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "halo/jinja/ast.h"
#include "halo/jinja/source.h"

namespace halo::jinja {

// An Error says the place in the template.
std::string render_template(const Source& source, const Block& block,
                            std::vector<std::pair<std::string, Value>> variables, Budget& budget,
                            std::chrono::system_clock::time_point now);

}  // namespace halo::jinja
