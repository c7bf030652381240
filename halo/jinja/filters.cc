#include "halo/jinja/filters.h"

#include <vector>

#include "halo/base/nearest.h"

namespace halo::jinja {
namespace {

// Jinja's own that we have not built: named, so that nobody looks for a typing error.
constexpr std::string_view kUnsupported[] = {
    "filesizeformat", "groupby",   "pprint", "random",   "striptags",
    "truncate",       "urlencode", "urlize", "wordwrap", "xmlattr",
};

Filter find_filter(std::string_view name) {
  for (const FilterTable* table : {&text_filters(), &sequence_filters()}) {
    if (const auto found = table->find(name); found != table->end()) return found->second;
  }
  return nullptr;
}

}  // namespace

bool is_filter(std::string_view name) {
  return find_filter(name) != nullptr;
}

std::string no_filter(std::string_view name) {
  for (const std::string_view unsupported : kUnsupported) {
    if (name == unsupported) return fmt::format("the filter '{}' is not supported", name);
  }
  std::vector<std::string> known;
  for (const FilterTable* table : {&text_filters(), &sequence_filters()}) {
    for (const auto& [filter, unused] : *table) known.emplace_back(filter);
  }
  return fmt::format("there is no filter '{}'; did you mean '{}'?", name,
                     nearest(std::string(name), known));
}

Value apply_filter(Budget& budget, std::string_view name, const Value& value, Arguments arguments) {
  const Filter filter = find_filter(name);
  if (!filter) throw Error(no_filter(name));
  return filter(budget, value, std::move(arguments));
}

}  // namespace halo::jinja
