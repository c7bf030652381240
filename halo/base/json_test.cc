#include "halo/base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "tests/testing.h"

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
  EXPECT_THAT(error_of(R"({"a": 1, "a": 2})"), HasSubstr("invalid JSON: duplicate key 'a'"));
  EXPECT_THAT(error_of(R"({"a": {"\u0062": 1, "b": 2}})"), HasSubstr("duplicate key 'b'"));
  EXPECT_THAT(error_of("{} x"), HasSubstr("byte 3"));
  EXPECT_THAT(error_of("{\"a\": \"\xff\"}"), HasSubstr("invalid JSON"));
  EXPECT_THAT(error_of("{\"\xc3(\": 1}"), HasSubstr("invalid JSON"));
  EXPECT_THAT(error_of(R"(["\ud800"])"), HasSubstr("invalid JSON"));
  EXPECT_THAT(error_of("[1e999]"), HasSubstr("too large"));
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "nan", "01", "// no\n1", "'a'"})
    EXPECT_THAT(error_of(text), HasSubstr("invalid JSON")) << text;
}

TEST(ParseJson, SaysWhichBytesAreNoText) {
  const std::string long_text(5000, 'a');
  EXPECT_EQ(error_of("{\"a\": \"caf\xe9 au lait\"}"),
            "f.json: byte 10: invalid JSON: the byte E9 is no UTF-8 (Latin-1 or Windows-1252?)");
  EXPECT_THAT(error_of("[\"" + long_text + "\xe9\"]"),
              HasSubstr("byte 5002: invalid JSON: the byte"));
  EXPECT_THAT(error_of("{\"" + long_text + "\xc3\": 1}"),
              HasSubstr("byte 5002: invalid JSON: the byte C3"));
  EXPECT_THAT(error_of("[\"\xed\xa0\x80\"]"),
              HasSubstr("byte 2: invalid JSON: the bytes ED A0 80 are"));
  EXPECT_THAT(error_of("[\"\xf0\x9f"),
              HasSubstr("byte 2: invalid JSON: the bytes F0 9F are no UTF-8"));
  EXPECT_THAT(error_of("\xe9[]"), HasSubstr("byte 0: invalid JSON: the byte E9"));
  // What is wrong first is what is said.
  EXPECT_THAT(error_of("[!, \"abcdefgh\xe9\"]"), HasSubstr("byte 1: invalid JSON: syntax"));
}

TEST(ParseJson, NamesHalfASurrogatePair) {
  for (const auto& [text, what] :
       {std::pair{R"(["a\ud83d"])", R"(byte 3: invalid JSON: \ud83d is half)"},
        {R"(["\ude00"])", R"(byte 2: invalid JSON: \ude00 is half)"},
        {R"(["\ud83d\ud83d\ude00"])", R"(byte 2: invalid JSON: \ud83d is half)"},
        {R"(["\ud83d\u0041"])", R"(byte 2: invalid JSON: \ud83d is half)"},
        {R"(["\ud83d and more"])", R"(byte 2: invalid JSON: \ud83d is half)"},
        {R"({"\uDBFF": 1})", R"(byte 2: invalid JSON: \uDBFF is half)"}}) {
    EXPECT_THAT(error_of(text), HasSubstr(what)) << text;
  }
  EXPECT_THAT(error_of(R"(["\ud83d\ude00"!])"), HasSubstr("syntax"));
}

TEST(ParseJson, TakesTheSameIntegerTwice) {
  const json::value value = parse_json(R"({"a": 1, "b": {"a": 2}, "a": 1, "c": 3})", "f");
  EXPECT_EQ(value.as_object().size(), 3u);
  EXPECT_EQ(value.at("a").as_int64(), 1);
  for (const char* text :
       {R"({"a": 1, "a": 2})", R"({"a": 1, "a": "1"})", R"({"a": "x", "a": "x"})",
        R"({"a": 1, "a": [1]})", R"({"a": {}, "a": 1})", R"({"a": 1, "a": 1.0})"})
    EXPECT_THAT(error_of(text), HasSubstr("duplicate key 'a'")) << text;
}

TEST(ParseJson, RefusesHugeIntegersWhereAsked) {
  const auto parse = [](const char* text) {
    return parse_json(text, "f.json", 0, HugeIntegers::kRefused);
  };
  EXPECT_EQ(parse("[1e22, 1E3, 100000000000000000000.0]").at(0).as_double(), 1e22);
  EXPECT_EQ(parse_json("[10000000000000000000000]", "f.json").at(0).as_double(), 1e22);
  EXPECT_EQ(parse("[18446744073709551615]").at(0).as_uint64(), 18446744073709551615u);
  for (const char* text : {"[18446744073709551616]", "[-9223372036854775809]"}) {
    EXPECT_THAT(test::error_of([&] { parse(text); }), HasSubstr("has more than 64 bits")) << text;
  }
}

TEST(ReadJson, SkipsTheByteOrderMark) {
  const test::Folder folder;
  write_file(folder / "a.json", "\xef\xbb\xbf{\"a\": 1}");
  EXPECT_EQ(read_json(folder / "a.json").at("a").as_int64(), 1);
  // "{}" in UTF-16.
  for (const std::string& text :
       {std::string("\xff\xfe{\0}\0", 6), std::string("\xfe\xff\0{\0}", 6)}) {
    write_file(folder / "b.json", text);
    EXPECT_THAT(
        test::error_of([&] { read_json(folder / "b.json"); }),
        testing::AllOf(HasSubstr("b.json: byte 0"), HasSubstr("byte-order mark of UTF-16")));
  }
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
