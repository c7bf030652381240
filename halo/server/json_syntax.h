// Whether a text is JSON, for texts that others read: a name twice, half a surrogate pair and
// numbers beyond doubles are JSON too, though parse_json takes none of them.
#pragma once

#include <string_view>

namespace halo {

// Where the value that begins at text[at] ends; npos: none begins there, or it is nested 64 deep.
size_t json_value_end(std::string_view text, size_t at);

}  // namespace halo
