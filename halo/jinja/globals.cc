// The functions a template finds without being given them.
#include <algorithm>
#include <ctime>

#include "halo/base/utf8.h"
#include "halo/jinja/filters.h"
#include "halo/jinja/operators.h"
#include "halo/jinja/text.h"

namespace halo::jinja {
namespace {

constexpr std::string_view kFunctions[] = {"dict", "namespace", "raise_exception", "range",
                                           "strftime_now"};
constexpr std::string_view kUnsupported[] = {"cycler", "joiner", "lipsum", "self"};
constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox

Value range(Budget& budget, Arguments arguments) {
  if (!arguments.named.empty()) throw_error("'range' takes no arguments by name");
  const bool stop_only = arguments.positional.size() == 1;
  if (stop_only) arguments.positional.insert(arguments.positional.begin(), Value(int64_t{0}));
  const Bound bound("range", std::move(arguments), {"start", "stop", "step"}, 2);
  const int64_t start = bound.integer(0), stop = bound.integer(1), step = bound.integer_or(2, 1);
  if (step == 0) throw_error("the step of a range is zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (items.size() == kMaxRange) throw_error("a range of more than {} items", kMaxRange);
    items.push_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return make_sequence(budget, Sequence::Kind::kRange, std::move(items));
}

// dict(mapping or pairs, name=value, ...)
std::vector<std::pair<Value, Value>> entries(Budget& budget, std::string_view function,
                                             Arguments arguments) {
  if (arguments.positional.size() > 1) throw_error("'{}' takes one argument in place", function);
  std::vector<std::pair<Value, Value>> out;
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (const Dict* dict = from.dict()) {
      out = dict->entries;
    } else {
      for (const Value& pair : iterate(budget, from)) {
        std::vector<Value> both = items_of(budget, pair);
        if (both.size() != 2) throw_error("'{}' of an item that is no pair", function);
        out.emplace_back(std::move(both[0]), std::move(both[1]));
      }
    }
  }
  for (auto& [name, value] : arguments.named) {
    out.emplace_back(make_string(budget, name), std::move(value));
  }
  return out;
}

Value make_namespace(Budget& budget, Arguments arguments) {
  auto out = std::make_shared<Namespace>();
  for (auto& [key, value] : entries(budget, "namespace", std::move(arguments))) {
    if (!key.is_string()) throw_error("a namespace with a name that is a {}", type_name(key));
    if (holds_state(value)) throw_error("a namespace or loop in a namespace is not supported");
    budget.bytes(key.text().size() + sizeof(Value) + 64);
    out->attributes.insert_or_assign(key.text(), std::move(value));
  }
  return out;
}

Value strftime_now(Budget& budget, const std::string& format,
                   std::chrono::system_clock::time_point now) {
  if (format.empty()) return make_string(budget, "");
  if (format.size() > 256) throw_error("'strftime_now': a format of more than 256 bytes");
  if (find_text(format, "%f") != npos) throw_error("'strftime_now': %f is not supported");
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm local{};
  localtime_r(&seconds, &local);
  std::string out(4096, '\0');
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &local));
  if (out.empty()) throw_error("'strftime_now': '{}' gives nothing, or too much", format);
  return make_string(budget, replace_invalid_utf8(out));
}

}  // namespace

Value global_function(Budget& budget, std::string_view name) {
  budget.step();
  if (std::ranges::find(kUnsupported, name) != std::end(kUnsupported)) {
    throw_error("'{}' is not supported", name);
  }
  if (std::ranges::find(kFunctions, name) == std::end(kFunctions)) {
    return Value::undefined(fmt::format("'{}' is undefined", name));
  }
  return std::make_shared<const Callable>(
      Callable{Callable::Kind::kGlobal, std::string(name), Value()});
}

Value call_global(Budget& budget, std::string_view name, Arguments arguments,
                  std::chrono::system_clock::time_point now) {
  if (name == "range") return range(budget, std::move(arguments));
  if (name == "dict") return make_dict(budget, entries(budget, name, std::move(arguments)));
  if (name == "namespace") return make_namespace(budget, std::move(arguments));
  if (name == "strftime_now") {
    const Bound bound(name, std::move(arguments), {"format"}, 1);
    return strftime_now(budget, bound.text(0), now);
  }
  const Bound bound(name, std::move(arguments), {"message"}, 1);  // raise_exception
  throw_error("the template refuses the conversation: {}",
              bound[0].is_string() ? bound.text(0) : "raise_exception was called");
}

}  // namespace halo::jinja
