#include "halo/base/stop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/stop_request.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

// In a child: says which signal ended it and leaves.
void install() {
  install_stop_handler([](const std::string& signal) {
    std::fprintf(stderr, "ended by %s\n", signal.c_str());
    _exit(3);
  });
}

[[noreturn]] void wait_for_the_end() {
  std::this_thread::sleep_for(std::chrono::seconds(20));
  _exit(99);
}

TEST(StopDeathTest, ASignalEndsTheProcessAndWhatIsTemporary) {
  const test::Folder folder;
  const auto die = [&](int signal) {
    install();
    AtomicFile file(folder / "file");
    file.write("half");
    commit_directory(folder / "model", [&](const fs::path& directory) {
      write_file(directory / "weights", "half");
      AtomicFile open(directory / "more");
      raise(signal);
      wait_for_the_end();
    });
  };
  EXPECT_EXIT(die(SIGTERM), testing::ExitedWithCode(3), "^ended by SIGTERM\n$");
  EXPECT_EXIT(die(SIGINT), testing::ExitedWithCode(3), "^ended by SIGINT\n$");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(StopDeathTest, ActionsRunNewestFirstAndOnlyWhileTheyLive) {
  const auto die = [] {
    install();
    const AtStop first([] { std::fputs("first\n", stderr); });
    {
      const AtStop gone([] { std::fputs("gone\n", stderr); });
    }
    const AtStop second([] { std::fputs("second\n", stderr); });
    raise(SIGTERM);
    wait_for_the_end();
  };
  EXPECT_EXIT(die(), testing::ExitedWithCode(3), "^second\nfirst\nended by SIGTERM\n$");
}

TEST(StopDeathTest, AnActionMayWriteAFile) {
  const test::Folder folder;
  const auto die = [&] {
    install();
    const AtStop at_stop([&] { write_file(folder / "STATUS", "stopped"); });
    const AtomicFile half(folder / "half");
    raise(SIGTERM);
    wait_for_the_end();
  };
  EXPECT_EXIT(die(), testing::ExitedWithCode(3), "^ended by SIGTERM\n$");
  EXPECT_EQ(read_file(folder / "STATUS"), "stopped");
  EXPECT_FALSE(fs::exists(folder / "half.tmp"));
}

TEST(StopDeathTest, StateIsSavedFirst) {
  const auto save = [] {
    install();
    try {
      const StopLater later("align saves its state");
      raise(SIGINT);
      while (!stop_requested()) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(100));  // nothing ends the process
      throw Stopped("saved");
    } catch (const Stopped& stopped) {
      std::fputs(stopped.what(), stderr);
      _exit(4);
    }
  };
  EXPECT_EXIT(save(), testing::ExitedWithCode(4),
              "^SIGINT: align saves its state, then the command ends.*\nsaved$");
}

// Told to stop when there was nothing left to save.
TEST(StopDeathTest, AnEndWithoutSavingEndsTheProcess) {
  const auto end = [] {
    install();
    {
      const StopLater later("align saves its state");
      raise(SIGTERM);
    }
    wait_for_the_end();
  };
  EXPECT_EXIT(end(), testing::ExitedWithCode(3), "ended by SIGTERM");
}

TEST(StopDeathTest, ASecondSignalKills) {
  const auto stop = [](int second) {
    install();
    const StopLater later("saves");
    raise(SIGTERM);
    raise(second);
    _exit(9);
  };
  EXPECT_EXIT(stop(SIGTERM), testing::KilledBySignal(SIGTERM), "");
  EXPECT_EXIT(stop(SIGINT), testing::KilledBySignal(SIGINT), "");
}

// Another process asks for it, and then everybody is told.
TEST(StopDeathTest, ARequestIsNotTheFirstSignal) {
  const auto stop = [](int signals) {
    install();
    const StopLater later("saves");
    request_stop();
    request_stop();
    for (int i = 0; i < signals; ++i) raise(SIGUSR1);
    _exit(stop_requested() ? 9 : 99);
  };
  EXPECT_EXIT(stop(0), testing::ExitedWithCode(9), "");
  EXPECT_EXIT(stop(1), testing::ExitedWithCode(9), "");
  EXPECT_EXIT(stop(2), testing::KilledBySignal(SIGUSR1), "");
  const auto end = [] {
    install();
    request_stop();
    wait_for_the_end();
  };
  EXPECT_EXIT(end(), testing::ExitedWithCode(3), "^ended by SIGTERM\n$");
}

TEST(StopDeathTest, ASignalThatWasHeldBackIsHeard) {
  const auto end = [] {
    const sigset_t signals = stop_signals();
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    raise(SIGTERM);
    install();
    wait_for_the_end();
  };
  EXPECT_EXIT(end(), testing::ExitedWithCode(3), "^ended by SIGTERM\n$");
}

}  // namespace
}  // namespace halo
