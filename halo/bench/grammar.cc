// Masks of grammars over a model's tokens, along answers that they allow.
#include "halo/grammar/grammar.h"

#include <algorithm>
#include <chrono>

#include "halo/base/check.h"
#include "halo/base/median.h"
#include "halo/bench/bench.h"
#include "halo/grammar/schema.h"

namespace halo {
namespace {

using Clock = std::chrono::steady_clock;

// A schema and a text that is valid by it.
struct Case {
  std::string name, schema, text;
};

Case quotes() {
  const char* schema = R"({"type": "object", "properties": {
      "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
      "quotes": {"type": "array", "items": {"type": "object", "properties": {
          "text": {"type": "string", "maxLength": 200},
          "kind": {"enum": ["letter", "book", "talk"]}, "year": {"type": ["integer", "null"]}},
          "required": ["text", "kind", "year"]}}},
      "required": ["name", "age", "quotes"]})";
  std::string text = R"({"name": "Ada Lovelace", "age": 36, "quotes": [)";
  for (int i = 0; i < 20; ++i) {
    text +=
        fmt::format(R"({}{{"text": "The engine weaves patterns, as looms weave leaves no. {}.",)"
                    R"( "kind": "letter", "year": 18{}}})",
                    i == 0 ? "" : ", ", i, 40 + i);
  }
  return {"quotes", schema, text + "]}"};
}

Case any_json() {
  std::string text = "{";
  for (int i = 0; i < 30; ++i) {
    text += fmt::format(R"({}"key {}": [{}.5, true, {{"a": null, "text": "It was \"late\"."}}])",
                        i == 0 ? "" : ", ", i, i);
  }
  return {"any object", R"({"type": "object"})", text + "}"};
}

// Of `count` properties, all of them required or none; a text that has every third, or all.
Case properties(int count, bool required) {
  json::object all;
  json::array names;
  std::string text;
  for (int i = 0; i < count; ++i) {
    const std::string name = fmt::format("field_{}", i);
    all[name] = json::object{{"type", i % 2 == 0 ? "string" : "integer"}};
    if (required) names.emplace_back(name);
    if (!required && i % 3 > 0) continue;
    text += fmt::format(R"({}"{}": {})", text.empty() ? "{" : ", ", name,
                        i % 2 == 0 ? R"("some words")" : "1234");
  }
  json::object schema{{"type", "object"}, {"properties", all}, {"required", names}};
  return {fmt::format("{} properties, {}", count, required ? "required" : "optional"),
          json::serialize(schema), text + "}"};
}

Case choices(int count) {
  json::array words, any;
  std::string text = "[";
  for (int i = 0; i < count; ++i) {
    const std::string word = fmt::format("choice_{}", i * i);
    words.emplace_back(word);
    const json::object named{{"name", json::object{{"const", word}}},
                             {"at", json::object{{"type", "integer"}}}};
    any.push_back(json::object{
        {"type", "object"}, {"properties", named}, {"required", json::array{"name", "at"}}});
    if (i % 20 == 0) {
      text +=
          fmt::format(R"({}"{}", {{"name": "{}", "at": {}}})", i == 0 ? "" : ", ", word, word, i);
    }
  }
  any.push_back(json::object{{"enum", std::move(words)}});
  const json::object items{{"anyOf", std::move(any)}};
  const json::object schema{{"type", "array"}, {"items", items}};
  return {fmt::format("{} constants and as many calls", count), json::serialize(schema),
          text + "]"};
}

Case tree() {
  const char* schema = R"({"$defs": {"node": {"type": "object", "properties": {
      "name": {"type": "string", "minLength": 1, "maxLength": 40},
      "date": {"type": "string", "format": "date"},
      "code": {"type": "string", "pattern": "[A-Z]{2}-\\d+"},
      "below": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
      "required": ["name", "date", "code", "below"]}}, "$ref": "#/$defs/node"})";
  const auto node = [](int i, const std::string& below) {
    return fmt::format(
        R"({{"name": "node {}", "date": "2026-11-{:02}", "code": "AB-{}", "below": [{}]}})", i,
        1 + i, 7 * i, below);
  };
  std::string text = node(0, "");
  for (int i = 1; i < 12; ++i) text = node(i, text + ", " + node(i, ""));
  return {"a tree", schema, text};
}

double microseconds(Clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

json::object measure(const Case& of, const Tokenizer& tokenizer, const GrammarCompiler& compiler) {
  const auto start = Clock::now();
  const Grammar grammar =
      compiler.compile(json_text(checked_schema(parse_json(of.schema, of.name), "schema")));
  const auto compiled = Clock::now();
  GrammarMatcher matcher(grammar);
  std::vector<uint32_t> allowed(static_cast<size_t>((tokenizer.vocab_size() + 31) / 32));
  std::vector<double> times;
  for (const int64_t id : tokenizer.encode(of.text)) {
    const auto before = Clock::now();
    matcher.mask(allowed);
    times.push_back(microseconds(Clock::now() - before));
    matcher.accept(id);
  }
  std::ranges::sort(times);
  const auto share = [&](double part) {
    return times[static_cast<size_t>(part * static_cast<double>(times.size() - 1))];
  };
  return {{"compile_ms", microseconds(compiled - start) / 1e3},
          {"masks", times.size()},
          {"mask_us_median", median(times)},
          {"mask_us_p99", share(0.99)},
          {"mask_us_most", share(1)}};
}

}  // namespace

json::object bench_grammar(const std::string& model) {
  const Tokenizer tokenizer(std::filesystem::path(model) / "tokenizer.json");
  const auto start = Clock::now();
  const GrammarCompiler compiler(
      grammar_tokens(tokenizer, tokenizer.vocab_size(), {tokenizer.document_end()}));
  json::object out{{"vocabulary", tokenizer.vocab_size()},
                   {"prepare_ms", microseconds(Clock::now() - start) / 1e3}};
  json::object schemas;
  for (const Case& of : {quotes(), any_json(), properties(300, true), properties(300, false),
                         properties(30, false), choices(200), tree()}) {
    schemas[of.name] = measure(of, tokenizer, compiler);
  }
  out["schemas"] = std::move(schemas);
  return out;
}

}  // namespace halo
