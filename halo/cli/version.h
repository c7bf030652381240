// Which halo this is. Defined in the one source that the build writes (cmake/HaloVersion.cmake).
#pragma once

#include <string_view>

namespace halo {

// "halo 0.1.0 (cd998ba1f2e3)"; "+changes" after the commit if tracked files differ from it, no
// commit if it is not known.
std::string_view version_line();

}  // namespace halo
