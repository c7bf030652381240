#include "halo/server/slot_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/files.h"
#include "halo/server/api_error.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(SlotFiles, NamesStayInTheFolder) {
  test::Folder folder;
  const SlotFiles slots(folder.path(), 1000);
  for (const char* good : {"a", "A-1_b.c", "0"}) EXPECT_EQ(slots.path(good, "name"), folder / good);
  for (const std::string& bad :
       {std::string(), std::string(".."), std::string(".a"), std::string("a/b"), std::string("/a"),
        std::string("a\\b"), std::string("a b"), std::string("a\0b", 3), std::string("\xc3\xa9"),
        std::string(65, 'a')})
    EXPECT_THROW(slots.path(bad, "name"), ApiError) << bad;
  EXPECT_FALSE(SlotFiles("", 0).is_on());
  EXPECT_THAT(test::error_of([&] { SlotFiles(folder / "none", 0); }), HasSubstr("is no folder"));
}

TEST(SlotFiles, WhatIsThere) {
  test::Folder folder;
  const SlotFiles slots(folder.path(), 1000);
  write_file(folder / "b", std::string(600, 'x'));
  write_file(folder / "a", "1");
  write_file(folder / ".hidden", "1");
  fs::create_directory(folder / "d");
  fs::create_symlink("/etc/passwd", folder / "link");
  ASSERT_EQ(slots.list().size(), 2u);
  EXPECT_EQ(slots.list()[1].name, "b");
  EXPECT_EQ(slots.list()[1].bytes, 600);
  EXPECT_EQ(slots.existing("b", "name"), folder / "b");
  for (const char* none : {"c", "d", "link"}) EXPECT_THROW(slots.existing(none, "name"), ApiError);
  slots.check_room("new", 399);
  slots.check_room("b", 999);
  EXPECT_THROW(slots.check_room("new", 400), ApiError);
  EXPECT_EQ(slots.without_folder((folder / "b").string() + ": damaged"), "b: damaged");
}

}  // namespace
}  // namespace halo
