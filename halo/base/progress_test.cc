#include "halo/base/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace halo {
namespace {

using testing::HasSubstr;
using testing::Not;

// Captured, stderr is no terminal.
TEST(Progress, ShortPhasesSayNothingButTheirEnd) {
  testing::internal::CaptureStderr();
  {
    const Progress loading("loading");
    Progress progress("align", 3);
    progress.update(1, "loss 3");
    progress.update(3, "loss 1");
    progress.finish("done");
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "align: done  (0s)\n");
}

// A line every two seconds, whether there is an update or not; an inner phase stands behind it.
TEST(Progress, LongPhasesSayWhereTheyAre) {
  testing::internal::CaptureStderr();
  {
    Progress progress("select", 28);
    progress.update(0);
    progress.update(7, "layers 1 5");
    std::this_thread::sleep_for(std::chrono::milliseconds(2500));
    const Progress inner("held-out text");
    std::this_thread::sleep_for(std::chrono::milliseconds(2000));
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, testing::MatchesRegex(
                        "select: 7/28  layers 1 5  ETA [0-9]+s\n"
                        "select: 7/28  layers 1 5  ETA [0-9]+s \\| held-out text: [0-9]s\n"));
  EXPECT_THAT(text, Not(HasSubstr("\r")));
}

}  // namespace
}  // namespace halo
