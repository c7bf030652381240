#include "halo/jinja/expression_parser.h"

#include <charconv>

#include "halo/jinja/filters.h"

namespace halo::jinja {
namespace {

constexpr int kMaxNesting = 150;
// So that no expression is deeper than the stack when it is taken apart.
constexpr int kMaxNodes = 3000;

std::string describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kData:
      return "text";
    case Token::Kind::kVariableBegin:
      return "'{{'";
    case Token::Kind::kVariableEnd:
      return "'}}'";
    case Token::Kind::kBlockBegin:
      return "'{%'";
    case Token::Kind::kBlockEnd:
      return "'%}'";
    case Token::Kind::kString:
      return "a text";
    case Token::Kind::kEnd:
      return "the end of the template";
    default:
      return "'" + token.text + "'";
  }
}

bool starts_operand(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kName:
      return token.text != "else" && token.text != "or" && token.text != "and";
    case Token::Kind::kString:
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
      return true;
    default:
      return token.kind == Token::Kind::kOperator && (token.text == "[" || token.text == "{");
  }
}

}  // namespace

ExpressionParser::Nested::Nested(ExpressionParser& parser) : parser_(parser) {
  if (++parser_.nesting_ > kMaxNesting) {
    parser_.fail(parser_.current().at, "blocks and brackets inside each other more than {} deep",
                 kMaxNesting);
  }
}

void ExpressionParser::unexpected(std::string_view expected) const {
  fail(current().at, "expected {}, got {}", expected, describe(current()));
}

void ExpressionParser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) unexpected(fmt::format("'{}'", op));
}

std::string ExpressionParser::expect_name() {
  if (!at(Kind::kName)) unexpected("a name");
  return take().text;
}

template <class Node>
ExpressionPtr ExpressionParser::make(size_t at, Node node) {
  if (++num_nodes_ > kMaxNodes) fail(at, "an expression of more than {} parts", kMaxNodes);
  return std::make_unique<Expression>(Expression{at, std::move(node)});
}

ExpressionPtr ExpressionParser::parse_expression(bool conditional) {
  const Nested nested(*this);
  const bool outermost = !std::exchange(inside_, true);
  if (outermost) num_nodes_ = 0;
  const size_t begin = current().at;
  ExpressionPtr value = parse_or();
  while (conditional && skip_name("if")) {
    ExpressionPtr condition = parse_or();
    ExpressionPtr otherwise;
    if (skip_name("else")) otherwise = parse_expression();
    value = make(begin, Conditional{std::move(condition), std::move(value), std::move(otherwise)});
  }
  inside_ = !outermost;
  return value;
}

ExpressionPtr ExpressionParser::parse_or() {
  ExpressionPtr left = parse_and();
  for (size_t begin = current().at; skip_name("or"); begin = current().at) {
    left = make(begin, Logical{false, std::move(left), parse_and()});
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  ExpressionPtr left = parse_not();
  for (size_t begin = current().at; skip_name("and"); begin = current().at) {
    left = make(begin, Logical{true, std::move(left), parse_not()});
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  const size_t begin = current().at;
  if (!skip_name("not")) return parse_compare();
  const Nested nested(*this);
  return make(begin, Not{parse_not()});
}

ExpressionPtr ExpressionParser::parse_compare() {
  static constexpr std::pair<std::string_view, Comparison> kOperators[] = {
      {"==", Comparison::kEqual},  {"!=", Comparison::kNotEqual},
      {"<", Comparison::kLess},    {"<=", Comparison::kLessEqual},
      {">", Comparison::kGreater}, {">=", Comparison::kGreaterEqual},
  };
  const auto comparison = [&]() -> std::optional<Comparison> {
    for (const auto& [text, known] : kOperators) {
      if (skip_operator(text)) return known;
    }
    if (skip_name("in")) return Comparison::kIn;
    if (at_name("not") && ahead().kind == Kind::kName && ahead().text == "in") {
      take();
      take();
      return Comparison::kNotIn;
    }
    return std::nullopt;
  };
  ExpressionPtr first = parse_sum();
  const size_t begin = current().at;
  std::vector<std::pair<Comparison, ExpressionPtr>> others;
  while (const auto known = comparison()) others.emplace_back(*known, parse_sum());
  if (others.empty()) return first;
  return make(begin, Compare{std::move(first), std::move(others)});
}

ExpressionPtr ExpressionParser::parse_sum() {
  ExpressionPtr left = parse_concatenation();
  while (at_operator("+") || at_operator("-")) {
    const Token& op = take();
    const auto operation = op.text == "+" ? Arithmetic::kAdd : Arithmetic::kSubtract;
    left = make(op.at, Computation{operation, std::move(left), parse_concatenation()});
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_concatenation() {
  std::vector<ExpressionPtr> parts;
  const size_t begin = current().at;
  parts.push_back(parse_product());
  while (skip_operator("~")) parts.push_back(parse_product());
  if (parts.size() == 1) return std::move(parts.front());
  return make(begin, Concatenation{std::move(parts)});
}

ExpressionPtr ExpressionParser::parse_product() {
  static constexpr std::pair<std::string_view, Arithmetic> kOperators[] = {
      {"*", Arithmetic::kMultiply},
      {"/", Arithmetic::kDivide},
      {"//", Arithmetic::kFloorDivide},
      {"%", Arithmetic::kModulo},
  };
  ExpressionPtr left = parse_power();
  for (;;) {
    const auto* found = std::ranges::find_if(
        kOperators, [&](const auto& known) { return at_operator(known.first); });
    if (found == std::end(kOperators)) return left;
    const size_t begin = take().at;
    left = make(begin, Computation{found->second, std::move(left), parse_power()});
  }
}

ExpressionPtr ExpressionParser::parse_power() {
  ExpressionPtr left = parse_signed(true);
  while (at_operator("**")) {
    const size_t begin = take().at;
    left = make(begin, Computation{Arithmetic::kPower, std::move(left), parse_signed(true)});
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_signed(bool with_filters) {
  ExpressionPtr value;
  if (at_operator("-") || at_operator("+")) {
    const Nested nested(*this);
    const Token& sign = take();
    value = make(sign.at, Sign{parse_signed(false), sign.text == "-"});
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  while (with_filters) {
    if (at_operator("|")) {
      value = parse_filters(std::move(value));
    } else if (at_name("is")) {
      value = parse_test(std::move(value));
    } else if (at_operator("(")) {
      const size_t begin = current().at;
      value = make(begin, Call{std::move(value), parse_arguments()});
    } else {
      break;
    }
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_primary() {
  const size_t begin = current().at;
  switch (current().kind) {
    case Kind::kName:
      return parse_name();
    case Kind::kInteger:
    case Kind::kFloat:
      return parse_number();
    case Kind::kString: {
      std::string text;
      while (at(Kind::kString)) text += take().text;
      return make(begin, Constant{make_string(budget_, std::move(text))});
    }
    default:
      break;
  }
  if (skip_operator("(")) {
    ExpressionPtr value = parse_tuple({.parenthesized = true});
    expect_operator(")");
    return value;
  }
  if (at_operator("[")) return parse_list();
  if (at_operator("{")) return parse_dict();
  unexpected("a value");
}

ExpressionPtr ExpressionParser::parse_name() {
  const Token& token = take();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return make(token.at, Constant{true});
  if (name == "false" || name == "False") return make(token.at, Constant{false});
  if (name == "none" || name == "None") return make(token.at, Constant{None{}});
  for (Signature* macro : macros_) {
    macro->takes_varargs = macro->takes_varargs || name == "varargs";
    macro->takes_kwargs = macro->takes_kwargs || name == "kwargs";
    macro->takes_caller = macro->takes_caller || name == "caller";
  }
  return make(token.at, Name{name});
}

ExpressionPtr ExpressionParser::parse_number() {
  const Token& token = take();
  const char* begin = token.text.data();
  const char* end = begin + token.text.size();
  if (token.kind == Kind::kFloat) {
    double number = 0;
    const auto result = std::from_chars(begin, end, number);
    if (result.ec != std::errc()) fail(token.at, "the number {} is not a float", token.text);
    return make(token.at, Constant{number});
  }
  int base = 10;
  if (token.text.size() > 2 && token.text[0] == '0' && token.text[1] > '9') {
    const char letter = token.text[1] | 0x20;
    base = letter == 'x' ? 16 : letter == 'o' ? 8 : 2;
    begin += 2;
  }
  int64_t number = 0;
  const auto result = std::from_chars(begin, end, number, base);
  if (result.ec != std::errc()) fail(token.at, "the integer {} has more than 64 bits", token.text);
  return make(token.at, Constant{number});
}

ExpressionPtr ExpressionParser::parse_tuple(const TupleRules& rules) {
  const size_t begin = current().at;
  const auto at_end = [&] {
    return at(Kind::kVariableEnd) || at(Kind::kBlockEnd) || at_operator(")");
  };
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (!at_end()) {
    items.push_back(parse_expression(rules.conditional));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items.front());
  if (items.empty() && !rules.parenthesized) unexpected("an expression");
  return make(begin, ListOf{std::move(items), true});
}

ExpressionPtr ExpressionParser::parse_list() {
  const size_t begin = current().at;
  expect_operator("[");
  std::vector<ExpressionPtr> items;
  while (!at_operator("]")) {
    items.push_back(parse_expression());
    if (!skip_operator(",")) break;
  }
  expect_operator("]");
  return make(begin, ListOf{std::move(items), false});
}

ExpressionPtr ExpressionParser::parse_dict() {
  const size_t begin = current().at;
  expect_operator("{");
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
  while (!at_operator("}")) {
    ExpressionPtr key = parse_expression();
    expect_operator(":");
    entries.emplace_back(std::move(key), parse_expression());
    if (!skip_operator(",")) break;
  }
  expect_operator("}");
  return make(begin, DictOf{std::move(entries)});
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr value) {
  for (;;) {
    const size_t begin = current().at;
    if (skip_operator(".")) {
      if (at(Kind::kInteger)) {
        ExpressionPtr index = parse_number();
        value = make(begin, Item{std::move(value), std::move(index)});
      } else {
        value = make(begin, Attribute{std::move(value), expect_name()});
      }
    } else if (at_operator("[")) {
      value = parse_subscript(std::move(value));
    } else if (at_operator("(")) {
      value = make(begin, Call{std::move(value), parse_arguments()});
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr object) {
  const size_t begin = current().at;
  expect_operator("[");
  ExpressionPtr from, to, step;
  if (!at_operator(":")) {
    from = parse_expression();
    if (skip_operator("]")) return make(begin, Item{std::move(object), std::move(from)});
    if (at_operator(",")) fail(current().at, "a key of several values is not supported");
  }
  expect_operator(":");
  const auto at_bound = [&] { return !at_operator(":") && !at_operator("]"); };
  if (at_bound()) to = parse_expression();
  if (skip_operator(":") && at_bound()) step = parse_expression();
  expect_operator("]");
  return make(begin, Slice{std::move(object), std::move(from), std::move(to), std::move(step)});
}

void ExpressionParser::parse_argument(CallArguments& arguments) {
  const size_t begin = current().at;
  const bool last = arguments.list != nullptr || arguments.mapping != nullptr;
  if (skip_operator("*")) {
    if (last) fail(begin, "a second '*' or one behind '**'");
    arguments.list = parse_expression();
  } else if (skip_operator("**")) {
    if (arguments.mapping) fail(begin, "a second '**'");
    arguments.mapping = parse_expression();
  } else if (at(Kind::kName) && ahead().kind == Kind::kOperator && ahead().text == "=") {
    if (arguments.mapping) fail(begin, "an argument behind '**'");
    std::string name = take().text;
    take();
    arguments.named.emplace_back(std::move(name), parse_expression());
  } else {
    if (last || !arguments.named.empty()) fail(begin, "an argument in place behind others");
    arguments.positional.push_back(parse_expression());
  }
}

CallArguments ExpressionParser::parse_arguments() {
  CallArguments arguments;
  expect_operator("(");
  while (!at_operator(")")) {
    parse_argument(arguments);
    if (!skip_operator(",")) break;
  }
  expect_operator(")");
  return arguments;
}

ExpressionPtr ExpressionParser::parse_filter(ExpressionPtr value, size_t begin) {
  const std::string name = expect_name();
  if (conditional_blocks_ == 0 && !is_filter(name)) fail(begin, "{}", no_filter(name));
  CallArguments arguments;
  if (at_operator("(")) arguments = parse_arguments();
  return make(begin, FilterCall{std::move(value), name, std::move(arguments)});
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr value) {
  for (size_t begin = current().at; skip_operator("|"); begin = current().at) {
    value = parse_filter(std::move(value), begin);
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr value) {
  const size_t begin = take().at;  // is
  const bool negated = skip_name("not");
  const std::string name = expect_name();
  if (conditional_blocks_ == 0 && !is_test(name)) fail(begin, "{}", no_test(name));
  CallArguments arguments;
  if (at_operator("(")) {
    arguments = parse_arguments();
  } else if (starts_operand(current())) {
    if (at_name("is")) fail(current().at, "'is' behind 'is'");
    const Nested nested(*this);
    arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  ExpressionPtr test = make(begin, TestCall{std::move(value), name, std::move(arguments)});
  return negated ? make(begin, Not{std::move(test)}) : std::move(test);
}

}  // namespace halo::jinja
