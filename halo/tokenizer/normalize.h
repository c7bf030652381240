// Unicode normalisation form C in linear time.
#pragma once

#include <string>
#include <string_view>

namespace halo {

// `text` must be well-formed UTF-8 (replace_invalid_utf8).
std::string normalize_nfc(std::string_view text);

}  // namespace halo
