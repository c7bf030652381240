#include "halo/base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace halo {
namespace {

TEST(ParallelFor, RunsEachIndexOnce) {
  for (const int threads : {1, 2, 5}) {
    std::vector<std::atomic<int>> counts(1000);
    parallel_for(1000, threads, [&](int64_t i) { ++counts[i]; });
    for (const auto& count : counts) ASSERT_EQ(count, 1);
  }
  parallel_for(0, 4, [](int64_t) { FAIL(); });
}

TEST(ParallelFor, ThrowsTheFirstErrorAndStops) {
  for (const int threads : {1, 4}) {
    std::atomic<int> ran = 0;
    const auto body = [&](int64_t i) {
      ++ran;
      if (i == 3) throw std::runtime_error("at 3");
    };
    EXPECT_THROW(parallel_for(1'000'000, threads, body), std::runtime_error);
    EXPECT_LT(ran, 1'000'000);
  }
}

}  // namespace
}  // namespace halo
