#include "halo/base/text.h"

#include <gmock/gmock.h>

#include "halo/base/files.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::error_of;
using testing::HasSubstr;

TEST(ByteOrderMark, OfUtf8IsSkippedAtTheBeginningAlone) {
  EXPECT_EQ(without_byte_order_mark("\xef\xbb\xbftext", "f"), "text");
  EXPECT_EQ(without_byte_order_mark("te\xef\xbb\xbfxt", "f"), "te\xef\xbb\xbfxt");
  EXPECT_EQ(without_byte_order_mark("\xef\xbb\xbf\xef\xbb\xbf", "f"), "\xef\xbb\xbf");
  EXPECT_EQ(without_byte_order_mark("", "f"), "");
  EXPECT_EQ(without_byte_order_mark("\xef\xbb", "f"), "\xef\xbb");
}

TEST(ByteOrderMark, OfOtherFormsIsNamed) {
  using namespace std::string_literals;
  for (const auto& [text, name] : {std::pair{"\xff\xfe"s, "UTF-16"},
                                   {"\xfe\xff"s, "UTF-16"},
                                   {"\xff\xfe"
                                    "a\0"s,
                                    "UTF-16"},
                                   {"\xff\xfe\0\0a\0\0\0"s, "UTF-32"},
                                   {"\0\0\xfe\xff"s, "UTF-32"}}) {
    EXPECT_THAT(error_of([&] { without_byte_order_mark(text, "f.txt"); }),
                testing::AllOf(HasSubstr("f.txt: byte 0"), HasSubstr(name)));
  }
}

TEST(ReadTextFile, GivesTheRest) {
  const test::Folder folder;
  write_file(folder / "a", "\xef\xbb\xbfone\n");
  write_file(folder / "b", "one\n");
  EXPECT_EQ(read_text_file(folder / "a"), "one\n");
  EXPECT_EQ(read_text_file(folder / "b"), "one\n");
}

TEST(InvalidUtf8, IsFoundWhereItBegins) {
  for (const char* text :
       {"", "a", "\xc2\x80", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf", "a\xed\x9f\xbf"})
    EXPECT_EQ(invalid_utf8_at(text), std::nullopt) << text;
  for (const auto& [text, at] : {std::pair{"\xe9", 0},
                                 {"ab\x80", 2},
                                 {"\xc3\xa9\xc0\x80", 2},
                                 {"a\xed\xa0\x80", 1},
                                 {"\xf4\x90\x80\x80", 0},
                                 {"abc\xe2\x82", 3},
                                 {"\xe0\x9f\xbf", 0},
                                 {"a\xc3(", 1}})
    EXPECT_EQ(invalid_utf8_at(text), std::optional<size_t>(at)) << text;
}

TEST(InvalidUtf8, IsDescribed) {
  EXPECT_EQ(describe_invalid_utf8("caf\xe9 au", 3),
            "the byte E9 is no UTF-8 (Latin-1 or Windows-1252?)");
  EXPECT_EQ(describe_invalid_utf8("\xed\xa0\x80z", 0), "the bytes ED A0 80 are no UTF-8");
  EXPECT_EQ(describe_invalid_utf8("\x80", 0), "the byte 80 is no UTF-8");
}

}  // namespace
}  // namespace halo
