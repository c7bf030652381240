// Values of expressions. What macros and recursive loops do when they are called is the renderer's.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "halo/jinja/arguments.h"
#include "halo/jinja/ast.h"
#include "halo/jinja/scope.h"

namespace halo::jinja {

class Evaluator {
 public:
  Value evaluate(const Expression& expression);

 protected:
  using CallMacro = std::function<Value(const MacroClosure& closure, Arguments arguments)>;
  using CallLoop = std::function<Value(const Loop& loop, Arguments arguments)>;

  Evaluator(Budget& budget, std::chrono::system_clock::time_point now, CallMacro call_macro,
            CallLoop call_loop)
      : budget_(budget),
        scopes_(budget),
        now_(now),
        call_macro_(std::move(call_macro)),
        call_loop_(std::move(call_loop)) {}

  // A call with the block `caller` of {% call %}, where there is one.
  Value call(const Call& call, size_t at, const Value* caller);
  // The filters of a block on its text.
  Value filter_block(const Expression& filter, Value text);

  Budget& budget_;
  Scopes scopes_;
  size_t at_ = 0;  // of what is being done, for messages

 private:
  Arguments evaluate_arguments(const CallArguments& arguments);
  Value value_or_none(const ExpressionPtr& expression);
  bool holds(Comparison comparison, const Value& a, const Value& b);

  Value value_of(const Constant& node, size_t at);
  Value value_of(const Name& node, size_t at);
  Value value_of(const ListOf& node, size_t at);
  Value value_of(const DictOf& node, size_t at);
  Value value_of(const Attribute& node, size_t at);
  Value value_of(const Item& node, size_t at);
  Value value_of(const Slice& node, size_t at);
  Value value_of(const Call& node, size_t at);
  Value value_of(const FilterCall& node, size_t at);
  Value value_of(const TestCall& node, size_t at);
  Value value_of(const Not& node, size_t at);
  Value value_of(const Sign& node, size_t at);
  Value value_of(const Computation& node, size_t at);
  Value value_of(const Concatenation& node, size_t at);
  Value value_of(const Logical& node, size_t at);
  Value value_of(const Compare& node, size_t at);
  Value value_of(const Conditional& node, size_t at);

  std::chrono::system_clock::time_point now_;
  CallMacro call_macro_;
  CallLoop call_loop_;
  Value block_text_;  // what a block's filters begin with
};

}  // namespace halo::jinja
