// Whether bytes are UTF-8.
#pragma once

#include <string_view>

namespace halo {

// No overlong forms, surrogates or code points above U+10FFFF.
bool is_utf8(std::string_view text);

}  // namespace halo
