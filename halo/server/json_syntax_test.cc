#include "halo/server/json_syntax.h"

#include <gtest/gtest.h>

#include <string>

namespace halo {
namespace {

TEST(JsonSyntax, TellsWhereAValueEnds) {
  const auto is_json = [](std::string_view text) { return json_value_end(text, 0) == text.size(); };
  for (const char* good :
       {"{}", "[]", "{ \"a\" : [1, -0.5e+3, true, false, null] , \"a\": \"\" }",
        "\"\\ud800\\n\\/\"", "1e999", "123456789012345678901234567890", "\"\xc3\xa9\"", "0"})
    EXPECT_TRUE(is_json(good)) << good;
  for (const char* bad :
       {"",   "{",  "[1,]", "{\"a\"}", "{a: 1}", "\"",  "\"\\x\"", "\"\\u12\"",   "\"\t\"", "01",
        "1.", ".5", "1e",   "-",       "+1",     "tru", "[1 2]",   "{\"a\": 1,}", "'a'",    "{} "})
    EXPECT_FALSE(is_json(bad)) << bad;
  EXPECT_EQ(json_value_end("[1]x", 0), 3u);
  EXPECT_EQ(json_value_end("  7,", 2), 3u);
  EXPECT_TRUE(is_json(std::string(64, '[') + std::string(64, ']')));
  EXPECT_FALSE(is_json(std::string(65, '[') + std::string(65, ']')));
  EXPECT_FALSE(is_json(std::string(1 << 20, '[')));
}

}  // namespace
}  // namespace halo
