#include "halo/grammar/schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/grammar/pattern.h"

namespace halo {
namespace {

using testing::HasSubstr;

json::value checked(std::string_view text) {
  return checked_schema(parse_json(text, "schema"), "s");
}

// "path: what" of the refusal.
std::string refusal(std::string_view text) {
  try {
    checked(text);
  } catch (const SchemaError& error) {
    return error.path() + ": " + error.what();
  }
  return "accepted";
}

TEST(Schema, NothingIsLeftToDefaults) {
  EXPECT_EQ(checked("true"), parse_json("{}", ""));
  EXPECT_EQ(checked(R"({"title": "T", "type": "object", "description": "d"})"),
            parse_json(R"({"additionalProperties": true, "type": "object"})", ""));
  EXPECT_EQ(
      checked(R"({"properties": {"a": {"type": "integer", "minimum": 2.0}}, "required": ["a"]})"),
      parse_json(R"({"properties": {"a": {"minimum": 2, "type": "integer"}},
                     "additionalProperties": false, "required": ["a"], "type": "object"})",
                 ""));
  EXPECT_EQ(checked(R"({"type": "array"})"), parse_json(R"({"items": {}, "type": "array"})", ""));
  EXPECT_EQ(
      checked(R"({"prefixItems": [{"type": "null"}]})"),
      parse_json(R"({"prefixItems": [{"type": "null"}], "items": false, "type": "array"})", ""));
  EXPECT_EQ(checked(R"({"type": ["string", "null"], "maxLength": 3, "minLength": 1})"),
            parse_json(R"({"minLength": 1, "maxLength": 3, "type": ["string", "null"]})", ""));
  EXPECT_EQ(checked(R"({"$defs": {"n": {"type": "null"}}, "$ref": "#/$defs/n"})"),
            parse_json(R"({"$ref": "#/$defs/n", "$defs": {"n": {"type": "null"}}})", ""));
}

TEST(Schema, NamesTheKeywordThatItDoesNotFollow) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type": "object", "properties": {"a": {"not": {}}}})",
       "s.properties.a.not: is not supported"},
      {R"({"type": "array", "uniqueItems": true})", "s.uniqueItems: is not supported"},
      {R"({"type": "object", "minProperties": 1})", "s.minProperties: is not supported"},
      {R"({"type": "array", "items": {"type": "array", "contains": {}}})",
       "s.items.contains: is not supported"},
      {R"({"anyOf": [{"type": "null"}], "type": "null"})",
       "s.type: is not supported beside 'anyOf'"},
      {R"({"anyOf": [{"type": "null"}, {"if": {}}]})", "s.anyOf.1.if: is not supported"},
      {R"({"minimum": 3})", "s.minimum: needs a 'type' beside it"},
      {R"({"allOf": [{}, {}]})", "s.allOf: is supported with one schema alone"},
      {R"({"type": "object", "properties": {"a": {}}, "additionalProperties": {}})",
       "s.additionalProperties: is supported as true or false beside 'properties'; answers have no "
       "others"},
      {R"({"type": "object", "properties": {"a": {}}, "required": ["a", "b"]})",
       "s.required.1: names none of the 'properties'"},
      {R"({"type": "number", "multipleOf": 0.1})",
       "s.multipleOf: expected an integer from 0 to 1024"},
      {R"({"type": "integer", "minimum": 0.5})", "s.minimum: expected a whole number up to 1e15"},
      {R"({"type": "number", "minimum": 0.1234567})",
       "s.minimum: expected a number up to 1e15 with 6 digits behind the point at most"},
      {R"({"type": "string", "format": "color"})",
       "s.format: expected one of date, time, date-time, duration, email, hostname, ipv4, ipv6, "
       "uuid, uri"},
      {R"({"type": "string", "pattern": "a", "maxLength": 2})",
       "s.maxLength: is not supported beside 'pattern' or 'format'"},
      {R"({"type": "string", "maxLength": 100000})",
       "s.maxLength: expected an integer from 0 to 10000"},
      {R"({"$ref": "#/$defs/a"})", "s.$ref: '#/$defs/a' is not found; expected '#' or '#/...'"},
      {R"({"$ref": "https://example.org/a"})",
       "s.$ref: 'https://example.org/a' is not found; expected '#' or '#/...'"},
      {R"({"enum": [1, "a"], "type": "string"})", "s.enum.0: is not of the 'type' beside it"},
      {R"({"enum": []})", "s.enum: expected a list that is not empty"},
      {R"({"type": "text"})",
       "s.type: expected 'object', 'array', 'string', 'number', 'integer', 'boolean' or 'null'"},
      {R"({"type": "array", "items": {"properties": 3}})",
       "s.items.properties: expected an object"},
      {"3", "s: expected a schema"},
      {"false", "s: false allows nothing"},
  };
  for (const auto& [schema, expected] : cases) EXPECT_EQ(refusal(schema), expected) << schema;
}

TEST(Schema, OneOfWhereNoValueFitsTwo) {
  for (const char* schema : {R"({"oneOf": [{"type": "string"}, {"type": ["integer", "null"]}]})",
                             R"({"oneOf": [{"const": 1}, {"enum": [2, "a"]}, {"type": "object"}]})",
                             R"({"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {
             "a": {"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]},
             "b": {"type": "object", "properties": {"kind": {"enum": ["b", "c"]}, "x": {}},
                   "required": ["kind"]}}})"})
    EXPECT_EQ(refusal(schema), "accepted");
  for (const char* schema :
       {R"({"oneOf": [{"type": "number"}, {"type": "integer"}]})",
        R"({"oneOf": [{"const": 1}, {"const": 1.0}]})", R"({"oneOf": [{}, {"type": "null"}]})",
        R"({"oneOf": [{"const": 2}, {"type": "integer"}]})",
        R"({"oneOf": [{"type": "object", "properties": {"k": {"const": 1}}},
                      {"type": "object", "properties": {"k": {"const": 2}}, "required": ["k"]}]})"})
    EXPECT_THAT(refusal(schema), HasSubstr("s.oneOf: is supported where")) << schema;
}

TEST(Pattern, ClassesAreWrittenOut) {
  EXPECT_EQ(exact_pattern(""), "");
  EXPECT_EQ(exact_pattern("^a(?:b|c)+\\.$"), R"(a(?:b|c)+[\x2e-\x2e])");
  EXPECT_EQ(exact_pattern("[a-c_]{2,5}"), R"([\x5f-\x5f\x61-\x63]{2,5})");
  EXPECT_EQ(exact_pattern("\\d*"), R"([\x30-\x39]*)");
  EXPECT_EQ(exact_pattern("\\D"), R"([\x20-\x21\x23-\x2f\x3a-\x5b\x5d-\x7e])");
  EXPECT_EQ(exact_pattern("[^ -~]").substr(0, 14), R"([\u0080-\u07fe)");
  for (const char* good : {"(a|b){2,5}c*", R"([\d\-x])", "a{3,}", R"(\+?\(\d\))", "[.*]", "[a-]"})
    EXPECT_NE(exact_pattern(good), "") << good;
}

TEST(Pattern, WhatIsInTheWayIsSaid) {
  for (const char* bad : {"a^b",         "a$b",      "(?=a)",
                          "(?<n>a)",     "(?i)a",    R"(\bword)",
                          R"(\p{L})",    R"(\\)",    R"(\n)",
                          R"(\1)",       R"([\D])",  R"([\\])",
                          "\"",          "\xc3\xa9", "a*?",
                          "a{2}+",       "*a",       "(|*)",
                          "[",           "[]",       "[^]",
                          "[[]",         "[b-a]",    "[a-[]",
                          "(a",          "a)",       "a{,3}",
                          "a{3",         "a{5,2}",   "a{129}",
                          "(a{20}){20}", ".{33}",    "a{99999999999999999999}",
                          "\\",          "]"})
    EXPECT_THROW(exact_pattern(bad), Error) << bad;
  EXPECT_THROW(exact_pattern(std::string(501, 'a')), Error);
}

}  // namespace
}  // namespace halo
