#include "halo/base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "halo/base/check.h"

namespace halo {
namespace {

using testing::HasSubstr;

std::string error_of(const std::string& text) {
  try {
    parse_json(text, "f.json");
  } catch (const ParseError& error) {
    return error.what();
  }
  return "no error";
}

TEST(ParseJson, ReadsEveryKind) {
  const json::value value = parse_json(
      R"({"a": [1, -2, 3.5, true, false, null], "b": {"c": "x\nA\u00e9\ud83d\ude00"}, "d": {}})",
      "f");
  EXPECT_EQ(value.at("a").as_array().size(), 6u);
  EXPECT_EQ(value.at("a").at(1).as_int64(), -2);
  EXPECT_EQ(value.at("b").at("c").as_string(), "x\nA\xc3\xa9\xf0\x9f\x98\x80");
  EXPECT_TRUE(value.at("d").as_object().empty());
}

TEST(ParseJson, RefusesWithTheOffset) {
  EXPECT_THAT(error_of(R"({"a": 1, "a": 2})"),
              HasSubstr("f.json: byte 11: invalid JSON: duplicate"));
  EXPECT_THAT(error_of(R"({"a": {"\u0062": 1, "b": 2}})"), HasSubstr("duplicate key 'b'"));
  EXPECT_THAT(error_of("{} x"), HasSubstr("byte 3"));
  EXPECT_THAT(error_of("{\"a\": \"\xff\"}"), HasSubstr("invalid JSON"));
  EXPECT_THAT(error_of("{\"\xc3(\": 1}"), HasSubstr("invalid JSON"));
  EXPECT_THAT(error_of(R"(["\ud800"])"), HasSubstr("invalid JSON"));
  EXPECT_THAT(error_of("[1e999]"), HasSubstr("too large"));
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "nan", "01", "// no\n1", "'a'"})
    EXPECT_THAT(error_of(text), HasSubstr("invalid JSON")) << text;
}

TEST(ParseJson, AllowsTheSameKeyInDifferentObjects) {
  EXPECT_EQ(error_of(R"({"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 2}]})"), "no error");
}

TEST(ParseJson, LimitsDepthTo64) {
  EXPECT_EQ(error_of(std::string(64, '[') + std::string(64, ']')), "no error");
  EXPECT_THAT(error_of(std::string(65, '[') + std::string(65, ']')), HasSubstr("invalid JSON"));
  EXPECT_THAT(error_of(std::string(1'000'000, '[')), HasSubstr("invalid JSON"));
}

TEST(ParseJson, AddsTheBaseOffset) {
  try {
    parse_json("{!", "f", 100);
    FAIL();
  } catch (const ParseError& error) {
    EXPECT_THAT(error.what(), HasSubstr("f: byte 101:"));
  }
}

TEST(FormatJson, NumbersReadBackToTheSameBits) {
  json::array numbers;
  for (const double x : {0.1, 1e-6, 1.0, 1e300, 5e-324, 123456789.123456789, 0.30000000000000004,
                         2.2250738585072011e-308, std::nextafter(1.0, 2.0), 1e22, -0.0})
    numbers.push_back(x);
  numbers.push_back(std::numeric_limits<int64_t>::min());
  numbers.push_back(std::numeric_limits<uint64_t>::max());
  const json::value read = parse_json(format_json(numbers), "f");
  EXPECT_EQ(read.as_array(), numbers);
  for (const json::value& x : read.as_array()) EXPECT_TRUE(x.is_number());
  EXPECT_TRUE(read.at(2).is_double());  // 1.0 stays a double
}

TEST(FormatJson, KeepsOrderAndIndentsByTwo) {
  EXPECT_EQ(format_json({{"b", 1}, {"a", {true, nullptr}}, {"c", json::object{}}}),
            "{\n  \"b\": 1,\n  \"a\": [\n    true,\n    null\n  ],\n  \"c\": {}\n}\n");
  EXPECT_EQ(format_json(std::nan("")), "null\n");
}

TEST(JsonGet, NamesFileAndKey) {
  const json::object object =
      parse_json(R"({"i": 3, "s": "x", "d": 1.5, "z": null})", "f").as_object();
  EXPECT_EQ(json_get<int64_t>(object, "i", "f.json"), 3);
  EXPECT_EQ(json_get<double>(object, "i", "f.json"), 3.0);
  EXPECT_EQ(json_get<std::string>(object, "s", "f.json"), "x");
  EXPECT_EQ(json_get_or<int64_t>(object, "absent", 9, "f.json"), 9);
  const auto error = [&](auto call) -> std::string {
    try {
      call();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(error([&] { json_get<bool>(object, "absent", "f.json"); }),
            "f.json: key 'absent' is missing");
  EXPECT_EQ(error([&] { json_get<int64_t>(object, "d", "f.json"); }),
            "f.json: key 'd' must be a 64-bit integer, not 1.5E0");
  EXPECT_THAT(error([&] { json_get_or<double>(object, "s", 1.0, "f.json"); }),
              HasSubstr("key 's' must be a number"));
  EXPECT_THAT(error([&] { json_get<json::array>(object, "z", "f.json"); }), HasSubstr("null"));
}

}  // namespace
}  // namespace halo
