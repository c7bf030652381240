// Where the checkout and the program under test are. No other source of a test knows: so what one
// checkout compiled is found from another (ccache).
#pragma once

#include <filesystem>

namespace halo::test {

std::filesystem::path source_dir();
std::filesystem::path program();  // build/halo

}  // namespace halo::test
