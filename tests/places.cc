#include "tests/places.h"

namespace halo::test {

std::filesystem::path source_dir() {
  return HALO_SOURCE_DIR;
}

std::filesystem::path program() {
  return HALO_PROGRAM;
}

}  // namespace halo::test
