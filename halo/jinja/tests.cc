// Jinja's tests: `value is string`.
#include <map>

#include "halo/base/nearest.h"
#include "halo/jinja/filters.h"
#include "halo/jinja/operators.h"
#include "halo/jinja/show.h"
#include "halo/jinja/text.h"

namespace halo::jinja {
namespace {

using Plain = bool (*)(Budget&, const Value&);
using Binary = bool (*)(Budget&, const Value&, const Value&);

bool is_sequence(Budget&, const Value& value) {
  const Sequence* sequence = value.sequence();
  return value.is_undefined() || value.is_string() || value.dict() ||
         (sequence && sequence->kind <= Sequence::Kind::kRange);
}

bool remainder_is(Budget& budget, const Value& value, int64_t divisor, int64_t wanted) {
  return equal(budget, compute(budget, Arithmetic::kModulo, value, divisor), wanted);
}

bool is_case(Budget& budget, const Value& value, Case wanted) {
  return is_all_of_case(to_text(budget, value), wanted);
}

bool same_as(Budget&, const Value& a, const Value& b) {
  if (a.is_bool() || b.is_bool()) {
    return a.is_bool() && b.is_bool() && a.boolean() == b.boolean();
  }
  if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
  if (a.address() && b.address() && !a.is_string()) return a.address() == b.address();
  throw_error("'sameas' of a {} and a {} is not supported", type_name(a), type_name(b));
}

const std::map<std::string_view, Plain>& plain_tests() {
  static const std::map<std::string_view, Plain> table = {
      {"boolean", [](Budget&, const Value& v) { return v.is_bool(); }},
      {"callable",
       [](Budget&, const Value& v) { return v.callable() || v.loop() || v.is_undefined(); }},
      {"defined", [](Budget&, const Value& v) { return !v.is_undefined(); }},
      {"escaped", [](Budget&, const Value& v) { return v.string() && v.string()->safe; }},
      {"even", [](Budget& b, const Value& v) { return remainder_is(b, v, 2, 0); }},
      {"false", [](Budget&, const Value& v) { return v.is_bool() && !v.boolean(); }},
      {"float", [](Budget&, const Value& v) { return v.is_float(); }},
      {"integer", [](Budget&, const Value& v) { return v.is_integer(); }},
      {"iterable", [](Budget&, const Value& v) { return is_iterable(v); }},
      {"lower", [](Budget& b, const Value& v) { return is_case(b, v, Case::kLower); }},
      {"mapping", [](Budget&, const Value& v) { return v.dict() != nullptr; }},
      {"none", [](Budget&, const Value& v) { return v.is_none(); }},
      {"number", [](Budget&, const Value& v) { return v.is_number(); }},
      {"odd", [](Budget& b, const Value& v) { return remainder_is(b, v, 2, 1); }},
      {"sequence", is_sequence},
      {"string", [](Budget&, const Value& v) { return v.is_string(); }},
      {"true", [](Budget&, const Value& v) { return v.is_bool() && v.boolean(); }},
      {"undefined", [](Budget&, const Value& v) { return v.is_undefined(); }},
      {"upper", [](Budget& b, const Value& v) { return is_case(b, v, Case::kUpper); }},
  };
  return table;
}

bool divisible(Budget& budget, const Value& a, const Value& b) {
  return equal(budget, compute(budget, Arithmetic::kModulo, a, b), int64_t{0});
}
bool not_equal(Budget& budget, const Value& a, const Value& b) {
  return !equal(budget, a, b);
}
bool greater(Budget& budget, const Value& a, const Value& b) {
  return order(budget, a, b) > 0;
}
bool greater_equal(Budget& budget, const Value& a, const Value& b) {
  return order(budget, a, b) >= 0;
}
bool less_equal(Budget& budget, const Value& a, const Value& b) {
  return order(budget, a, b) <= 0;
}

const std::map<std::string_view, Binary>& binary_tests() {
  static const std::map<std::string_view, Binary> table = {
      {"!=", not_equal},
      {"<", less},
      {"<=", less_equal},
      {"==", equal},
      {">", greater},
      {">=", greater_equal},
      {"divisibleby", divisible},
      {"eq", equal},
      {"equalto", equal},
      {"ge", greater_equal},
      {"greaterthan", greater},
      {"gt", greater},
      {"in", [](Budget& b, const Value& v, const Value& in) { return contains(b, in, v); }},
      {"le", less_equal},
      {"lessthan", less},
      {"lt", less},
      {"ne", not_equal},
      {"sameas", same_as},
  };
  return table;
}

}  // namespace

bool is_test(std::string_view name) {
  return plain_tests().contains(name) || binary_tests().contains(name);
}

std::string no_test(std::string_view name) {
  if (name == "filter" || name == "test") {
    return fmt::format("the test '{}' is not supported", name);
  }
  std::vector<std::string> known;
  for (const auto& [test, unused] : plain_tests()) known.emplace_back(test);
  for (const auto& [test, unused] : binary_tests()) known.emplace_back(test);
  return fmt::format("there is no test '{}'; did you mean '{}'?", name, nearest(name, known));
}

bool apply_test(Budget& budget, std::string_view name, const Value& value, Arguments arguments) {
  if (const auto plain = plain_tests().find(name); plain != plain_tests().end()) {
    Bound(name, std::move(arguments), {});
    return plain->second(budget, value);
  }
  const auto binary = binary_tests().find(name);
  if (binary == binary_tests().end()) throw Error(no_test(name));
  const Bound bound(name, std::move(arguments), {"other"}, 1);
  return binary->second(budget, value, bound[0]);
}

}  // namespace halo::jinja
