#include "halo/grammar/format.h"

namespace halo {
namespace {

// Of characters at a time: enough to indent by, and no way to write nothing for ever.
constexpr int64_t kMostSpace = 16;

json::array trees_of(std::vector<TextFormat> parts) {
  json::array out;
  for (TextFormat& part : parts) out.push_back(std::move(part.tree));
  return out;
}

}  // namespace

TextFormat literal(std::string_view text) {
  return {{{"type", "const_string"}, {"value", text}}};
}

TextFormat matching(std::string_view pattern) {
  return {{{"type", "regex"}, {"pattern", pattern}}};
}

TextFormat json_text(json::value schema) {
  return {{{"type", "json_schema"},
           {"json_schema", std::move(schema)},
           {"max_whitespace_cnt", kMostSpace}}};
}

TextFormat sequence(std::vector<TextFormat> parts) {
  return {{{"type", "sequence"}, {"elements", trees_of(std::move(parts))}}};
}

TextFormat one_of(std::vector<TextFormat> choices) {
  if (choices.size() == 1) return std::move(choices.front());
  return {{{"type", "or"}, {"elements", trees_of(std::move(choices))}}};
}

TextFormat repeated(TextFormat part, int least) {
  return {{{"type", least == 0 ? "star" : "plus"}, {"content", std::move(part.tree)}}};
}

TextFormat free_text(const std::vector<std::string>& without) {
  return {{{"type", "any_text"}, {"excludes", json::array(without.begin(), without.end())}}};
}

TextFormat free_text_with(std::vector<std::pair<std::string, TextFormat>> marks) {
  json::array rules;
  for (auto& [mark, format] : marks) rules.push_back(json::array{mark, std::move(format.tree)});
  return {{{"type", "dispatch"}, {"rules", std::move(rules)}}};
}

}  // namespace halo
