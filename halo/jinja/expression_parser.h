// Tokens to expressions, by Jinja's grammar: conditional, or, and, not, comparison, + -, ~,
// * / // %, **, sign, then what follows a value: .name [key] (call) | filter, is test.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "halo/jinja/ast.h"
#include "halo/jinja/lexer.h"

namespace halo::jinja {

class ExpressionParser {
 public:
  ExpressionParser(const Source& source, Budget& budget)
      : source_(source), budget_(budget), tokens_(tokenize(source)) {}

 protected:
  using Kind = Token::Kind;

  // What may stand where a tuple can.
  struct TupleRules {
    bool conditional = true;  // `a if b else c` is taken whole
    bool parenthesized = false;
  };

  const Token& current() const { return tokens_[next_]; }
  const Token& ahead() const { return tokens_[std::min(next_ + 1, tokens_.size() - 1)]; }
  const Token& take() { return tokens_[next_ + 1 < tokens_.size() ? next_++ : next_]; }
  bool at(Kind kind) const { return current().kind == kind; }
  bool at_name(std::string_view name) const { return at(Kind::kName) && current().text == name; }
  bool at_operator(std::string_view op) const {
    return at(Kind::kOperator) && current().text == op;
  }
  bool skip_name(std::string_view name) { return at_name(name) && (take(), true); }
  bool skip_operator(std::string_view op) { return at_operator(op) && (take(), true); }
  void expect_operator(std::string_view op);
  std::string expect_name();
  template <class... Args>
  [[noreturn]] void fail(size_t at, fmt::format_string<Args...> format, Args&&... args) const {
    source_.fail(at, format, std::forward<Args>(args)...);
  }
  // "expected X, got Y" at the current token.
  [[noreturn]] void unexpected(std::string_view expected) const;

  ExpressionPtr parse_expression(bool conditional = true);
  ExpressionPtr parse_tuple(const TupleRules& rules);
  // `| filter | filter` on a value, or on the text of a block where it is null.
  ExpressionPtr parse_filters(ExpressionPtr value);
  ExpressionPtr parse_filter(ExpressionPtr value, size_t at);

  // Guards the parser's own recursion.
  class Nested {
   public:
    explicit Nested(ExpressionParser& parser);
    ~Nested() { --parser_.nesting_; }

   private:
    ExpressionParser& parser_;
  };

  const Source& source_;
  Budget& budget_;
  // The macros around: names in them tell what they take.
  std::vector<Signature*> macros_;
  // Blocks of `if` around: Jinja looks there for filters and tests only when it comes to them.
  int conditional_blocks_ = 0;

 private:
  template <class Node>
  ExpressionPtr make(size_t at, Node node);

  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concatenation();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_signed(bool with_filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name();
  ExpressionPtr parse_number();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr value);
  ExpressionPtr parse_subscript(ExpressionPtr object);
  ExpressionPtr parse_test(ExpressionPtr value);
  CallArguments parse_arguments();
  void parse_argument(CallArguments& arguments);

  std::vector<Token> tokens_;
  size_t next_ = 0;
  int nesting_ = 0;
  bool inside_ = false;  // an expression
  int num_nodes_ = 0;    // of the outermost one
};

}  // namespace halo::jinja
