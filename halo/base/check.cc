#include "halo/base/check.h"

#include <cstring>

namespace halo::detail {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  const char* part = std::strstr(file, "halo/");
  throw Error(fmt::format("{} [{}:{}: {}]", message, part ? part : file, line, condition));
}

}  // namespace halo::detail
