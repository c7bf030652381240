#include "halo/base/folder_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "halo/base/files.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(FolderLock, OneProcessAtATime) {
  const test::Folder folder;
  const fs::path run = folder / "run";
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const pid_t other = fork();
  if (other == 0) {
    const FolderLock lock(run);
    (void)!write(pipe_ends[1], "x", 1);
    pause();
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(pipe_ends[0], &byte, 1), 1);
  const std::string name = fmt::format("process {} on ", other);
  EXPECT_THAT(FolderLock::holder(run).value_or(""), HasSubstr(name));
  EXPECT_THAT(test::error_of([&] { const FolderLock lock(run); }), HasSubstr(name));
  kill(other, SIGKILL);
  waitpid(other, nullptr, 0);
  EXPECT_TRUE(fs::exists(run / "lock"));  // left behind, and held by nobody
  EXPECT_EQ(FolderLock::holder(run), std::nullopt);
  { const FolderLock lock(run); }
  EXPECT_FALSE(fs::exists(run / "lock"));
}

TEST(FolderLock, LeavesNoFolderThatItMade) {
  const test::Folder folder;
  { const FolderLock lock(folder / "new"); }
  EXPECT_FALSE(fs::exists(folder / "new"));
  fs::create_directories(folder / "old");
  { const FolderLock lock(folder / "old"); }
  EXPECT_TRUE(fs::exists(folder / "old"));
  {
    const FolderLock lock(folder / "used");
    write_file(folder / "used" / "a", "");
  }
  EXPECT_TRUE(fs::exists(folder / "used" / "a"));
}

}  // namespace
}  // namespace halo
