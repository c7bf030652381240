// Masks of a grammar over a model's tokens, along an answer that it allows.
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

constexpr const char* kSchema = R"({"type": "object", "properties": {
    "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
    "quotes": {"type": "array", "items": {"type": "object", "properties": {
        "text": {"type": "string", "maxLength": 200}, "kind": {"enum": ["letter", "book", "talk"]},
        "year": {"type": ["integer", "null"]}}, "required": ["text", "kind", "year"]}}},
    "required": ["name", "age", "quotes"]})";

std::string answer_of_many_quotes() {
  std::string out = R"({"name": "Ada Lovelace", "age": 36, "quotes": [)";
  for (int i = 0; i < 20; ++i) {
    out += fmt::format(R"({}{{"text": "The engine weaves patterns, as looms weave leaves no. {}.",)"
                       R"( "kind": "letter", "year": 18{}}})",
                       i == 0 ? "" : ", ", i, 40 + i);
  }
  return out + "]}";
}

}  // namespace

json::object bench_grammar(const std::string& model) {
  const Tokenizer tokenizer(std::filesystem::path(model) / "tokenizer.json");
  const int64_t vocabulary = tokenizer.vocab_size();
  const auto microseconds = [](Clock::duration time) {
    return std::chrono::duration<double, std::micro>(time).count();
  };
  const auto start = Clock::now();
  const GrammarCompiler compiler(grammar_tokens(tokenizer, vocabulary, {tokenizer.document_end()}));
  const auto prepared = Clock::now();
  const Grammar grammar =
      compiler.compile(json_text(checked_schema(parse_json(kSchema, "schema"), "schema")));
  const auto compiled = Clock::now();
  GrammarMatcher matcher(grammar);
  std::vector<uint32_t> allowed(static_cast<size_t>((vocabulary + 31) / 32));
  std::vector<double> times;
  for (const int64_t id : tokenizer.encode(answer_of_many_quotes())) {
    const auto before = Clock::now();
    matcher.mask(allowed);
    times.push_back(microseconds(Clock::now() - before));
    matcher.accept(id);
  }
  std::ranges::sort(times);
  const auto share = [&](double of) {
    return times[static_cast<size_t>(of * static_cast<double>(times.size() - 1))];
  };
  return {{"vocabulary", vocabulary},
          {"prepare_ms", microseconds(prepared - start) / 1e3},
          {"compile_ms", microseconds(compiled - prepared) / 1e3},
          {"masks", times.size()},
          {"mask_us_median", median(times)},
          {"mask_us_p99", share(0.99)},
          {"mask_us_most", share(1)}};
}

}  // namespace halo
