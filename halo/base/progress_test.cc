#include "halo/base/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <thread>

namespace halo {
namespace {

using testing::HasSubstr;
using testing::Not;

// Captured, stderr is no terminal: the first and the last line come at once, those between are held
// back for seconds.
TEST(Progress, WritesPlainLinesWhereThereIsNoTerminal) {
  testing::internal::CaptureStderr();
  {
    Progress progress("align", 3);
    progress.update(1, "loss 3");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    progress.update(2, "loss 2");
    progress.update(3, "loss 1");
    progress.finish("done");
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, HasSubstr("align: 1/3  loss 3\n"));
  EXPECT_THAT(text, Not(HasSubstr("loss 2")));
  EXPECT_THAT(text, HasSubstr("align: 3/3  loss 1\nalign: done  (0s)\n"));
  EXPECT_THAT(text, Not(HasSubstr("\r")));
}

TEST(StopHandlerDeathTest, FirstSignalAsksSecondEnds) {
  const auto stop = [](int second) {
    install_stop_handler();
    if (stop_requested()) _exit(1);
    raise(SIGTERM);
    if (!stop_requested()) _exit(2);
    raise(second);
    _exit(3);
  };
  EXPECT_EXIT(stop(SIGTERM), testing::KilledBySignal(SIGTERM), "");
  EXPECT_EXIT(stop(SIGINT), testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace halo
