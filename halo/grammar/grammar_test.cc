#include "halo/grammar/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "halo/base/random.h"
#include "halo/grammar/schema.h"
#include "halo/grammar/validator_testing.h"
#include "tests/places.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::HasSubstr;

const std::filesystem::path kDemo = test::source_dir() / "demo/teacher";

struct Model {
  explicit Model(const std::filesystem::path& folder, bool has_end = true)
      : tokenizer(folder / "tokenizer.json"),
        end(tokenizer.document_end()),
        vocabulary(tokenizer.vocab_size()),
        compiler(grammar_tokens(tokenizer, vocabulary,
                                has_end ? std::vector{end} : std::vector<int64_t>())) {}

  Tokenizer tokenizer;
  int64_t end, vocabulary;
  GrammarCompiler compiler;
};

const Model& demo() {
  static const Model model(kDemo);
  return model;
}

#ifdef HALO_HAVE_GRAMMAR

TextFormat schema_text(std::string_view schema) {
  return json_text(checked_schema(parse_json(schema, "schema"), "schema"));
}

std::vector<int64_t> allowed(GrammarMatcher& matcher, int64_t vocabulary) {
  std::vector<uint32_t> bits(static_cast<size_t>((vocabulary + 31) / 32), ~uint32_t{0});
  matcher.mask(bits);
  std::vector<int64_t> out;
  for (int64_t id = 0; id < vocabulary; ++id) {
    if (bits[static_cast<size_t>(id / 32)] >> (id % 32) & 1) out.push_back(id);
  }
  return out;
}

// A text drawn token by token from all that the grammar allows, its end token as soon as there is a
// choice once it is long; nothing where it does not end.
std::optional<std::string> draw(const Model& model, const Grammar& grammar, const Random& random) {
  constexpr uint64_t kLong = 60, kMost = 600;
  GrammarMatcher matcher(grammar);
  std::string text;
  for (uint64_t i = 0; i < kMost; ++i) {
    const std::vector<int64_t> choices = allowed(matcher, model.vocabulary);
    if (choices.empty()) {
      ADD_FAILURE() << "no token may follow " << text;
      return std::nullopt;
    }
    if (std::ranges::count(choices, model.end) > 0 &&
        (choices.size() == 1 || i > kLong || random.below(2 * i, 4) == 0))
      return text;
    // What closes something is likelier late, so that texts end.
    int64_t id = choices[static_cast<size_t>(random.below(2 * i + 1, std::ssize(choices)))];
    for (const char* closing : {"\"", "}", "]", "\"}", "\"]"}) {
      const auto token = model.tokenizer.token_id(closing);
      if (i > kLong && token && std::ranges::count(choices, *token) > 0) id = *token;
    }
    if (id == model.end) continue;
    matcher.accept(id);
    text += model.tokenizer.token_bytes(id);
  }
  return std::nullopt;
}

bool takes(const Model& model, const Grammar& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar);
  for (const int64_t id : model.tokenizer.encode(text)) {
    const std::vector<int64_t> choices = allowed(matcher, model.vocabulary);
    if (std::ranges::count(choices, id) == 0) return false;
    matcher.accept(id);
  }
  return std::ranges::count(allowed(matcher, model.vocabulary), model.end) > 0;
}

bool takes(std::string_view schema, std::string_view text) {
  return takes(demo(), demo().compiler.compile(schema_text(schema)), text);
}

TEST(Grammar, TakesWhatTheSchemaTakes) {
  const char* person = R"({"type": "object", "properties": {
      "name": {"type": "string", "minLength": 2, "maxLength": 6},
      "age": {"type": "integer", "minimum": 0, "maximum": 150},
      "tags": {"type": "array", "items": {"enum": ["a", "b/c"]}, "maxItems": 2}},
      "required": ["name", "age"]})";
  EXPECT_TRUE(takes(person, R"({"name": "Ada", "age": 36})"));
  EXPECT_TRUE(
      takes(person, "{\n  \"name\": \"\xc3\x89mile\",\n  \"age\": 7,\n  \"tags\": [\"b/c\"]\n}"));
  EXPECT_FALSE(takes(person, R"({"name": "A", "age": 36})"));
  EXPECT_FALSE(takes(person, R"({"name": "Ada Lovelace", "age": 36})"));
  EXPECT_FALSE(takes(person, "{\"name\": \"A\tda\", \"age\": 36}"));
  EXPECT_FALSE(takes(person, R"({"name": "Ada", "age": 151})"));
  EXPECT_FALSE(takes(person, R"({"name": "Ada"})"));
  EXPECT_FALSE(takes(person, R"({"name": "Ada", "age": 3, "x": 1})"));
  EXPECT_FALSE(takes(person, R"({"name": "Ada", "age": 3, "tags": ["a", "a", "a"]})"));
  EXPECT_FALSE(takes(person, R"({"name": "Ada", "age": 36)"));
  const char* any = R"({"type": "object"})";
  EXPECT_TRUE(takes(any, R"({"a": [1, 2.5e3, {"b": null}], "c": "\u00e9 \" x"})"));
  EXPECT_FALSE(takes(any, "[1]"));
  EXPECT_FALSE(takes(any, "3"));
  const char* tree = R"({"$defs": {"t": {"type": "object", "properties": {
      "v": {"type": "number"}, "l": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "null"}]}},
      "required": ["v", "l"]}}, "$ref": "#/$defs/t"})";
  EXPECT_TRUE(takes(tree, R"({"v": 1, "l": {"v": -0.5, "l": null}})"));
  EXPECT_FALSE(takes(tree, R"({"v": 1, "l": {"v": -0.5}})"));
  EXPECT_TRUE(takes(R"({"type": "string", "pattern": "^[A-Z]{2}-\\d+$"})", "\"AB-12\""));
  EXPECT_FALSE(takes(R"({"type": "string", "pattern": "^[A-Z]{2}-\\d+$"})", "\"AB-\""));
  EXPECT_TRUE(takes(R"({"type": "string", "format": "date"})", "\"2026-11-30\""));
  EXPECT_FALSE(takes(R"({"type": "string", "format": "date"})", "\"2026-13-30\""));
}

// Drawn at random, so that what a model would hardly write comes too: whatever ends is valid.
TEST(Grammar, WhatItWritesIsValid) {
  int ended = 0, all = 0;
  for (uint64_t s = 0; s < 400; ++s) {
    const json::value schema = test::random_schema(Random(7, "schema", s));
    SCOPED_TRACE(json::serialize(schema));
    const Grammar grammar = demo().compiler.compile(json_text(checked_schema(schema, "schema")));
    for (uint64_t i = 0; i < 6; ++i, ++all) {
      const std::optional<std::string> text = draw(demo(), grammar, Random(s, "text", i));
      if (!text) continue;
      ++ended;
      json::value value;
      try {
        value = parse_json(*text, "answer");
      } catch (const Error& error) {
        // JSON, if not of ours.
        EXPECT_THAT(error.what(), testing::AnyOf(HasSubstr("surrogate"), HasSubstr("duplicate"),
                                                 HasSubstr("too large for a double"),
                                                 HasSubstr("exponent overflow")))
            << *text;
        continue;
      }
      EXPECT_EQ(test::why_invalid(schema, value), "") << *text;
    }
  }
  EXPECT_GT(ended, all * 3 / 4) << "of " << all;
}

TEST(Grammar, FormatsAreTextsBehindOneAnother) {
  const auto takes_format = [](const TextFormat& format, std::string_view text) {
    return takes(demo(), demo().compiler.compile(format), text);
  };
  const TextFormat thought =
      sequence({literal("<think>"), free_text({"</think>"}), literal("</think>"), matching("\\s*"),
                schema_text(R"({"type": "boolean"})")});
  EXPECT_TRUE(takes_format(thought, "<think>a < b, so {</think>\n\ntrue"));
  EXPECT_FALSE(takes_format(thought, "<think>true"));
  EXPECT_FALSE(takes_format(thought, "true"));
  const TextFormat list =
      sequence({literal("["), literal("a"), repeated(literal(",a"), 0), literal("]")});
  EXPECT_TRUE(takes_format(list, "[a]"));
  EXPECT_TRUE(takes_format(list, "[a,a,a]"));
  EXPECT_FALSE(takes_format(list, "[]"));
  const TextFormat calls =
      free_text_with({{"<call>", sequence({schema_text(R"({"const": 1})"), literal("</call>")})}});
  EXPECT_TRUE(takes_format(calls, "no call < here"));
  EXPECT_TRUE(takes_format(calls, "one: <call>1</call> and <call>1</call>."));
  EXPECT_FALSE(takes_format(calls, "<call>2</call>"));
  EXPECT_FALSE(takes_format(calls, "<call>1"));
  EXPECT_TRUE(takes_format(one_of({literal("a"), literal("b")}), "b"));
}

TEST(Grammar, AModelWithoutEndTokensEndsItself) {
  const Model model(kDemo, false);
  GrammarMatcher matcher(model.compiler.compile(literal("ab")));
  for (const int64_t id : model.tokenizer.encode("ab")) {
    EXPECT_FALSE(matcher.ended());
    matcher.accept(id);
  }
  EXPECT_TRUE(matcher.ended());
}

TEST(Grammar, SpecialTokensAreNoText) {
  GrammarMatcher matcher(demo().compiler.compile(free_text({})));
  const std::vector<int64_t> choices = allowed(matcher, demo().vocabulary);
  for (int64_t id = 0; id < demo().vocabulary; ++id) {
    if (id == demo().end || !demo().tokenizer.is_special(id)) continue;
    EXPECT_EQ(std::ranges::count(choices, id), 0) << id;
  }
  GrammarMatcher one(demo().compiler.compile(literal("a")));
  const int64_t other = demo().tokenizer.encode("b").front();
  EXPECT_THAT(test::error_of([&] { one.accept(other); }),
              HasSubstr("is not of the answer's grammar"));
}

TEST(Grammar, SaysThatThereIsNone) {
  EXPECT_THAT(test::error_of([] { demo().compiler.compile(schema_text(R"({"$ref": "#"})")); }),
              HasSubstr("no grammar can be made of it"));
}

#else

TEST(Grammar, SaysThatThereAreNone) {
  EXPECT_THAT(test::error_of([] { demo().compiler.compile(literal("a")); }),
              HasSubstr("HALO_GRAMMAR=OFF"));
}

#endif

}  // namespace
}  // namespace halo
