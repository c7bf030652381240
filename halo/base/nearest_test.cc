#include "halo/base/nearest.h"

#include <gtest/gtest.h>

namespace halo {
namespace {

TEST(Nearest, IsByEditDistance) {
  EXPECT_EQ(nearest("tokns", {"steps", "tokens", "token_type"}), "tokens");
  EXPECT_EQ(nearest("x", {}), "");
}

}  // namespace
}  // namespace halo
