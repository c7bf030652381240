#include "halo/base/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::Folder;
using testing::HasSubstr;

class Files : public testing::Test {
 protected:
  Folder folder_;
};

TEST_F(Files, WritesReadsAndReplaces) {
  const fs::path path = folder_ / "a";
  write_file(path, "one");
  EXPECT_EQ(read_file(path), "one");
  write_file(path, "two!");
  EXPECT_EQ(read_file(path), "two!");
  EXPECT_FALSE(fs::exists(path.string() + ".tmp"));
  EXPECT_THAT(error_of([&] { read_file(path, 3); }), HasSubstr("4 bytes, more than the 3 allowed"));
}

TEST_F(Files, WithoutCommitNothingChanges) {
  const fs::path path = folder_ / "a";
  write_file(path, "before");
  {
    AtomicFile file(path);
    file.write("after");
  }
  EXPECT_EQ(read_file(path), "before");
  EXPECT_FALSE(fs::exists(path.string() + ".tmp"));
}

TEST_F(Files, ErrorsNameOperationPathAndReason) {
  EXPECT_EQ(error_of([&] { write_file(folder_ / "no" / "a", "x"); }),
            "cannot create " + (folder_ / "no" / "a.tmp").string() + ": No such file or directory");
  EXPECT_EQ(error_of([&] { read_file(folder_ / "absent"); }),
            "cannot open " + (folder_ / "absent").string() + ": No such file or directory");
  EXPECT_THAT(error_of([&] { MappedFile map(folder_.path()); }),
              HasSubstr("is not a regular file"));
}

// In a child, which can give up the right of root to write anywhere.
TEST_F(Files, UnwritableFolderIsOneError) {
  fs::permissions(folder_.path(), fs::perms::owner_read | fs::perms::owner_exec);
  const auto write_as_nobody = [&] {
    if (geteuid() == 0 && seteuid(65534) != 0) _exit(2);
    std::fprintf(stderr, "%s\n", error_of([&] { write_file(folder_ / "a", "x"); }).c_str());
    _exit(0);
  };
  EXPECT_EXIT(write_as_nobody(), testing::ExitedWithCode(0),
              "^cannot create .*/a.tmp: Permission denied\n$");
  fs::permissions(folder_.path(), fs::perms::owner_all);
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

// A file-size limit stands in for a full disk: write() fails half-way.
TEST_F(Files, FailedWriteLeavesTheOldFile) {
  const fs::path path = folder_ / "a";
  write_file(path, "before");
  const auto write_beyond_limit = [&] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    const std::string error = error_of([&] { write_file(path, std::string(10'000, 'x')); });
    std::fprintf(stderr, "%s\n", error.c_str());
    _exit(fs::exists(path.string() + ".tmp") ? 1 : 0);
  };
  EXPECT_EXIT(write_beyond_limit(), testing::ExitedWithCode(0),
              "cannot write .*/a.tmp: File too large");
  EXPECT_EQ(read_file(path), "before");
}

// As root a rename onto a device would take its place.
TEST_F(Files, WhatIsNoRegularFileIsNotReplaced) {
  fs::create_directory(folder_ / "a");
  EXPECT_EQ(error_of([&] { write_file(folder_ / "a", "x"); }),
            "cannot write " + (folder_ / "a").string() + ": it is a folder");
  fs::create_symlink("/dev/full", folder_ / "full");
  EXPECT_THAT(error_of([&] { write_file(folder_ / "full", "x"); }), HasSubstr("no regular file"));
  EXPECT_THAT(error_of([&] { commit_directory(folder_ / "full", [](const fs::path&) {}); }),
              HasSubstr("there is something else"));
  EXPECT_TRUE(fs::is_symlink(folder_ / "full"));
  EXPECT_FALSE(fs::exists(folder_ / "a.tmp"));
  EXPECT_FALSE(fs::exists(folder_ / "full.tmp"));
}

TEST_F(Files, AFolderIsWholeOrNotThere) {
  const fs::path path = folder_ / "model", temporary = folder_ / "model.tmp";
  const auto fill = [](const fs::path& directory) { write_file(directory / "a", "one"); };
  const auto break_off = [&](const fs::path& directory) {
    fill(directory);
    throw_error("no space");
  };
  EXPECT_THAT(error_of([&] { commit_new_directory(path, break_off); }), HasSubstr("no space"));
  EXPECT_FALSE(fs::exists(path));
  EXPECT_FALSE(fs::exists(temporary));
  fs::create_directories(path);  // empty: a user may have made it
  commit_new_directory(path / "", fill);
  EXPECT_EQ(read_file(path / "a"), "one");
  EXPECT_FALSE(fs::exists(temporary));
  EXPECT_THAT(error_of([&] { commit_new_directory(path, fill); }), HasSubstr("is not empty"));
  // One that may be replaced stays as it was where the new one fails.
  EXPECT_THAT(error_of([&] { commit_directory(path, break_off); }), HasSubstr("no space"));
  EXPECT_EQ(read_file(path / "a"), "one");
  EXPECT_FALSE(fs::exists(temporary));
}

TEST_F(Files, MapsWholeFiles) {
  write_file(folder_ / "a", "hello");
  MappedFile first(folder_ / "a");
  MappedFile map(std::move(first));
  ASSERT_EQ(map.bytes().size(), 5u);
  EXPECT_EQ(static_cast<char>(map.bytes()[4]), 'o');
  write_file(folder_ / "empty", "");
  MappedFile empty(folder_ / "empty");
  EXPECT_TRUE(empty.bytes().empty());
  empty = std::move(map);
  EXPECT_EQ(empty.bytes().size(), 5u);
}

// The digest of no bytes is a constant of the algorithm.
TEST_F(Files, HashesFiles) {
  EXPECT_EQ(hash_hex({}), "99aa06d3014798d86001c324468d497f");
  write_file(folder_ / "a", "hello");
  write_file(folder_ / "b", "hellp");
  EXPECT_EQ(hash_file(folder_ / "a"), hash_hex(std::as_bytes(std::span<const char>("hello", 5))));
  EXPECT_NE(hash_file(folder_ / "a"), hash_file(folder_ / "b"));
}

using FilesDeathTest = Files;

// The environment is read once a process, so each point dies in a fresh one, which works in this
// one's folder.
TEST_F(FilesDeathTest, CrashPointsKillWhereTheyAreNamed) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  folder_.share_with_children();
  const fs::path path = folder_ / "a";
  const auto crash = [&](const char* where) {
    setenv("HALO_CRASH_AT", where, 1);
    write_file(path, "first");
    write_file(path, "second");
    _exit(0);
  };
  const testing::KilledBySignal killed(SIGKILL);
  EXPECT_EXIT(crash("file.before_write"), killed, "");
  EXPECT_EXIT(crash("file.before_sync"), killed, "");
  EXPECT_EXIT(crash("file.before_rename"), killed, "");
  EXPECT_FALSE(fs::exists(path));
  EXPECT_EXIT(crash("file.before_rename:2"), killed, "");
  EXPECT_EQ(read_file(path), "first");
  EXPECT_EXIT(crash("file.after_rename:2"), killed, "");
  EXPECT_EQ(read_file(path), "second");
  EXPECT_EXIT(crash("file.after_rename:3"), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(crash("elsewhere"), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace halo
