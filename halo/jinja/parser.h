// Source to statements.
#pragma once

#include "halo/jinja/ast.h"
#include "halo/jinja/source.h"

namespace halo::jinja {

// An Error says the place and what is wrong there, or which tag is not supported.
Block parse_template(const Source& source, Budget& budget);

}  // namespace halo::jinja
