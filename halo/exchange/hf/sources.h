// The two Python files beside this one, which every exported model carries (cmake/HaloEmbed.cmake
// puts their text into the program).
#pragma once

#include <string_view>

namespace halo {

std::string_view configuration_hypenet_py();
std::string_view modeling_hypenet_py();

}  // namespace halo
