// A parsed template: statements with expressions in them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "halo/jinja/operators.h"
#include "halo/jinja/value.h"

namespace halo::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr list, mapping;  // *list, **mapping; may be null
};

struct Constant {
  Value value;
};
struct Name {
  std::string name;
};
struct ListOf {
  std::vector<ExpressionPtr> items;
  bool is_tuple;
};
struct DictOf {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
struct Attribute {
  ExpressionPtr object;
  std::string name;
};
struct Item {
  ExpressionPtr object, key;
};
struct Slice {
  ExpressionPtr object, from, to, step;  // bounds may be null
};
struct Call {
  ExpressionPtr callee;
  CallArguments arguments;
};
struct FilterCall {
  ExpressionPtr value;  // null: the text of the block that the filter is for
  std::string name;
  CallArguments arguments;
};
struct TestCall {
  ExpressionPtr value;
  std::string name;
  CallArguments arguments;
};
struct Not {
  ExpressionPtr operand;
};
struct Sign {
  ExpressionPtr operand;
  bool is_minus;
};
struct Computation {
  Arithmetic operation;
  ExpressionPtr left, right;
};
struct Concatenation {  // a ~ b ~ c
  std::vector<ExpressionPtr> parts;
};
struct Logical {  // gives the operand that decides, as Python does
  bool is_and;
  ExpressionPtr left, right;
};
enum class Comparison {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};
struct Compare {  // a < b <= c
  ExpressionPtr first;
  std::vector<std::pair<Comparison, ExpressionPtr>> others;
};
struct Conditional {
  ExpressionPtr condition, then, otherwise;  // otherwise may be null
};

struct Expression {
  size_t at;  // offset in the source
  std::variant<Constant, Name, ListOf, DictOf, Attribute, Item, Slice, Call, FilterCall, TestCall,
               Not, Sign, Computation, Concatenation, Logical, Compare, Conditional>
      node;
};

// What is assigned to: a name, a namespace's attribute, or several of them.
struct Target {
  size_t at;
  std::string name, attribute;
  std::vector<Target> parts;  // of a tuple, which has no name
  bool is_tuple = false;
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

struct Signature {
  struct Parameter {
    std::string name;
    ExpressionPtr otherwise;  // null: none
  };
  std::vector<Parameter> parameters;
  // Whether the body asks for what is left over, and for the caller.
  bool takes_varargs = false, takes_kwargs = false, takes_caller = false;
};

struct Text {
  std::string text;
};
struct Print {
  std::vector<ExpressionPtr> values;
};
struct If {
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  Block otherwise;
};
struct For {
  Target target;
  ExpressionPtr items, filter;  // filter may be null
  bool recursive = false;
  Block body, otherwise;
};
struct Set {
  Target target;
  ExpressionPtr value;
};
struct SetBlock {
  Target target;
  ExpressionPtr filter;  // may be null
  Block body;
};
struct Macro {
  std::string name;
  Signature signature;
  Block body;
};
struct CallBlock {
  Macro caller;
  ExpressionPtr call;
};
struct FilterBlock {
  ExpressionPtr filter;
  Block body;
};
struct With {
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  Block body;
};
struct Generation {  // marks what the assistant says; renders as its body
  Block body;
};
struct Break {};
struct Continue {};

struct Statement {
  size_t at;
  std::variant<Text, Print, If, For, Set, SetBlock, Macro, CallBlock, FilterBlock, With, Generation,
               Break, Continue>
      node;
};

}  // namespace halo::jinja
