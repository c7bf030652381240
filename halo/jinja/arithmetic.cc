// +, -, *, /, //, % and ** of operators.h. Integers have 64 bits: what would need more is refused.
#include <cmath>

#include "halo/jinja/operators.h"

namespace halo::jinja {
namespace {

constexpr std::string_view kSigns[] = {"+", "-", "*", "/", "//", "%", "**"};

[[noreturn]] void overflow() {
  throw_error("an integer would have more than 64 bits");
}

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return result;
}

Value compute_integers(Arithmetic operation, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (operation) {
    case Arithmetic::kAdd:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      return result;
    case Arithmetic::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      return result;
    case Arithmetic::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      return result;
    case Arithmetic::kPower:
      if (b >= 0) return power(a, b);
      if (a == 0) throw_error("zero to a negative power");
      return std::pow(static_cast<double>(a), static_cast<double>(b));
    default:
      break;
  }
  if (b == 0) throw_error("division by zero");
  if (operation == Arithmetic::kDivide) return static_cast<double>(a) / static_cast<double>(b);
  if (b == -1) {
    if (operation == Arithmetic::kModulo) return int64_t{0};
    if (__builtin_sub_overflow(int64_t{0}, a, &result)) overflow();
    return result;
  }
  const int64_t remainder = a % b;
  const bool down = remainder != 0 && (remainder < 0) != (b < 0);
  if (operation == Arithmetic::kModulo) return down ? remainder + b : remainder;
  return down ? a / b - 1 : a / b;
}

Value compute_floats(Arithmetic operation, double a, double b) {
  switch (operation) {
    case Arithmetic::kAdd:
      return a + b;
    case Arithmetic::kSubtract:
      return a - b;
    case Arithmetic::kMultiply:
      return a * b;
    case Arithmetic::kPower: {
      if (a == 0 && b < 0) throw_error("zero to a negative power");
      const double result = std::pow(a, b);
      if (a < 0 && std::floor(b) != b)
        throw_error("a negative number to a power that is no integer");
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
        throw_error("the power is too large for a float");
      }
      return result;
    }
    default:
      break;
  }
  if (b == 0) throw_error("division by zero");
  if (operation == Arithmetic::kDivide) return a / b;
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0) {
    if ((b < 0) != (remainder < 0)) {
      remainder += b;
      quotient -= 1;
    }
  } else {
    remainder = std::copysign(0.0, b);
  }
  if (operation == Arithmetic::kModulo) return remainder;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

bool has_markup(std::string_view text) {
  return text.find_first_of("&<>'\"") != std::string_view::npos;
}

Value join_texts(Budget& budget, const String& a, const String& b) {
  if ((a.safe && !b.safe && has_markup(b.text)) || (b.safe && !a.safe && has_markup(a.text))) {
    throw_error("'+' of a safe text and one with &, <, > or quotes would escape it; use '~'");
  }
  budget.bytes(a.text.size() + b.text.size());
  return make_string(budget, a.text + b.text, a.safe || b.safe);
}

Value repeat(Budget& budget, const Value& what, int64_t times) {
  const auto count = static_cast<size_t>(times < 0 ? 0 : times);
  if (const String* string = what.string()) {
    const size_t size = string->text.size();
    size_t total = 0;
    if (__builtin_mul_overflow(size, count, &total)) overflow();
    budget.bytes(total);
    std::string text;
    text.reserve(total);
    for (size_t i = 0; size > 0 && i < count; ++i) text += string->text;
    return make_string(budget, std::move(text), string->safe);
  }
  const Sequence& sequence = *what.sequence();
  size_t total = 0;
  if (__builtin_mul_overflow(sequence.items.size(), count, &total)) overflow();
  budget.step(total);
  std::vector<Value> items;
  for (size_t i = 0; i < total; ++i) items.push_back(sequence.items[i % sequence.items.size()]);
  return make_sequence(budget, sequence.kind, std::move(items));
}

bool can_repeat(const Value& value) {
  const Sequence* sequence = value.sequence();
  return value.is_string() || (sequence && (sequence->kind == Sequence::Kind::kList ||
                                            sequence->kind == Sequence::Kind::kTuple));
}

}  // namespace

Value compute(Budget& budget, Arithmetic operation, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    return compute_integers(operation, a.integer(), b.integer());
  }
  if (a.is_number() && b.is_number()) return compute_floats(operation, a.number(), b.number());
  if (operation == Arithmetic::kModulo && a.is_string()) {
    if (a.string()->safe) throw_error("'%' of a safe text is not supported");
    return make_string(budget, format_percent(budget, a.text(), b));
  }
  require_defined(a);
  require_defined(b);
  if (operation == Arithmetic::kAdd) {
    if (a.is_string() && b.is_string()) return join_texts(budget, *a.string(), *b.string());
    if (can_repeat(a) && a.sequence() && b.sequence() && a.sequence()->kind == b.sequence()->kind) {
      std::vector<Value> items = a.sequence()->items;
      items.insert(items.end(), b.sequence()->items.begin(), b.sequence()->items.end());
      return make_sequence(budget, a.sequence()->kind, std::move(items));
    }
  }
  if (operation == Arithmetic::kMultiply) {
    if (can_repeat(a) && b.is_integral()) return repeat(budget, a, b.integer());
    if (can_repeat(b) && a.is_integral()) return repeat(budget, b, a.integer());
  }
  throw_error("'{}' has no meaning for a {} and a {}", kSigns[static_cast<int>(operation)],
              type_name(a), type_name(b));
}

Value negative(const Value& value) {
  require_defined(value);
  if (value.is_float()) return -value.number();
  if (!value.is_integral()) throw_error("'-' has no meaning for a {}", type_name(value));
  return compute_integers(Arithmetic::kSubtract, 0, value.integer());
}

}  // namespace halo::jinja
