// Text as HTML.
#pragma once

#include <string>
#include <string_view>

namespace halo {

// Safe as HTML text and inside a quoted attribute; the entities that Jinja's `escape` writes.
std::string escape_html(std::string_view text);

}  // namespace halo
