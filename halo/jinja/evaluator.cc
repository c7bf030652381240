#include "halo/jinja/evaluator.h"

#include "halo/jinja/filters.h"
#include "halo/jinja/methods.h"
#include "halo/jinja/operators.h"
#include "halo/jinja/show.h"

namespace halo::jinja {

Value Evaluator::evaluate(const Expression& expression) {
  budget_.step();
  const Budget::Nested nested(budget_);
  at_ = expression.at;
  return std::visit([&](const auto& node) { return value_of(node, expression.at); },
                    expression.node);
}

Value Evaluator::value_or_none(const ExpressionPtr& expression) {
  return expression ? evaluate(*expression) : None{};
}

Value Evaluator::filter_block(const Expression& filter, Value text) {
  std::swap(block_text_, text);
  Value value = evaluate(filter);
  std::swap(block_text_, text);
  return value;
}

Arguments Evaluator::evaluate_arguments(const CallArguments& arguments) {
  Arguments out;
  for (const ExpressionPtr& value : arguments.positional) {
    out.positional.push_back(evaluate(*value));
  }
  for (const auto& [name, value] : arguments.named) out.named.emplace_back(name, evaluate(*value));
  if (arguments.list) {
    for (Value& value : items_of(budget_, evaluate(*arguments.list))) {
      out.positional.push_back(std::move(value));
    }
  }
  if (arguments.mapping) {
    const Value mapping = evaluate(*arguments.mapping);
    const Dict* dict = mapping.dict();
    if (!dict) throw_error("'**' of a {}, not of a mapping", type_name(mapping));
    for (const auto& [key, value] : dict->entries) {
      if (!key.is_string()) throw_error("'**': a key is a {}, not a text", type_name(key));
      budget_.bytes(key.text().size() + sizeof(Value));
      out.named.emplace_back(key.text(), value);
    }
  }
  return out;
}

Value Evaluator::value_of(const Constant& node, size_t) {
  return node.value;
}

Value Evaluator::value_of(const Name& node, size_t) {
  if (const Value* value = scopes_.find(node.name)) return *value;
  return global_function(budget_, node.name);
}

Value Evaluator::value_of(const ListOf& node, size_t at) {
  std::vector<Value> items;
  for (const ExpressionPtr& item : node.items) items.push_back(evaluate(*item));
  at_ = at;
  return node.is_tuple ? make_tuple(budget_, std::move(items))
                       : make_list(budget_, std::move(items));
}

Value Evaluator::value_of(const DictOf& node, size_t at) {
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [key, value] : node.entries) {
    Value evaluated = evaluate(*key);
    entries.emplace_back(std::move(evaluated), evaluate(*value));
  }
  at_ = at;
  return make_dict(budget_, std::move(entries));
}

Value Evaluator::value_of(const Attribute& node, size_t at) {
  const Value object = evaluate(*node.object);
  at_ = at;
  return get_attribute(budget_, object, node.name);
}

Value Evaluator::value_of(const Item& node, size_t at) {
  const Value object = evaluate(*node.object);
  const Value key = evaluate(*node.key);
  at_ = at;
  return get_item(budget_, object, key);
}

Value Evaluator::value_of(const Slice& node, size_t at) {
  const Value object = evaluate(*node.object);
  const Value from = value_or_none(node.from), to = value_or_none(node.to),
              step = value_or_none(node.step);
  at_ = at;
  return get_slice(budget_, object, from, to, step);
}

Value Evaluator::call(const Call& call, size_t at, const Value* caller) {
  const Value callee = evaluate(*call.callee);
  Arguments arguments = evaluate_arguments(call.arguments);
  if (caller) arguments.named.emplace_back("caller", *caller);
  at_ = at;
  if (const Loop* loop = callee.loop()) return call_loop_(*loop, std::move(arguments));
  require_defined(callee);
  const Callable* callable = callee.callable();
  if (!callable) throw_error("a {} cannot be called", type_name(callee));
  switch (callable->kind) {
    case Callable::Kind::kGlobal:
      return call_global(budget_, callable->name, std::move(arguments), now_);
    case Callable::Kind::kMethod:
      return call_method(budget_, callable->self, callable->name, std::move(arguments));
    case Callable::Kind::kMacro:
      break;
  }
  return call_macro_(*callable->macro, std::move(arguments));
}

Value Evaluator::value_of(const Call& node, size_t at) {
  return call(node, at, nullptr);
}

Value Evaluator::value_of(const FilterCall& node, size_t at) {
  const Value value = node.value ? evaluate(*node.value) : block_text_;
  Arguments arguments = evaluate_arguments(node.arguments);
  at_ = at;
  return apply_filter(budget_, node.name, value, std::move(arguments));
}

Value Evaluator::value_of(const TestCall& node, size_t at) {
  const Value value = evaluate(*node.value);
  Arguments arguments = evaluate_arguments(node.arguments);
  at_ = at;
  return apply_test(budget_, node.name, value, std::move(arguments));
}

Value Evaluator::value_of(const Not& node, size_t) {
  return !is_true(evaluate(*node.operand));
}

Value Evaluator::value_of(const Sign& node, size_t at) {
  const Value value = evaluate(*node.operand);
  at_ = at;
  if (node.is_minus) return negative(value);
  require_defined(value);
  if (!value.is_number()) throw_error("'+' has no meaning for a {}", type_name(value));
  return value.is_bool() ? Value(value.integer()) : value;
}

Value Evaluator::value_of(const Computation& node, size_t at) {
  const Value left = evaluate(*node.left);
  const Value right = evaluate(*node.right);
  at_ = at;
  return compute(budget_, node.operation, left, right);
}

Value Evaluator::value_of(const Concatenation& node, size_t at) {
  std::string text;
  for (const ExpressionPtr& part : node.parts) {
    const Value value = evaluate(*part);
    at_ = part->at;
    text += to_text(budget_, value);
  }
  at_ = at;
  return make_string(budget_, std::move(text));
}

Value Evaluator::value_of(const Logical& node, size_t) {
  Value left = evaluate(*node.left);
  return is_true(left) == node.is_and ? evaluate(*node.right) : left;
}

bool Evaluator::holds(Comparison comparison, const Value& a, const Value& b) {
  switch (comparison) {
    case Comparison::kEqual:
      return equal(budget_, a, b);
    case Comparison::kNotEqual:
      return !equal(budget_, a, b);
    case Comparison::kLess:
      return order(budget_, a, b) < 0;
    case Comparison::kLessEqual:
      return order(budget_, a, b) <= 0;
    case Comparison::kGreater:
      return order(budget_, a, b) > 0;
    case Comparison::kGreaterEqual:
      return order(budget_, a, b) >= 0;
    case Comparison::kIn:
      return contains(budget_, b, a);
    case Comparison::kNotIn:
      break;
  }
  return !contains(budget_, b, a);
}

Value Evaluator::value_of(const Compare& node, size_t at) {
  Value left = evaluate(*node.first);
  for (const auto& [comparison, other] : node.others) {
    Value right = evaluate(*other);
    at_ = at;
    if (!holds(comparison, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::value_of(const Conditional& node, size_t) {
  if (is_true(evaluate(*node.condition))) return evaluate(*node.then);
  if (node.otherwise) return evaluate(*node.otherwise);
  return Value::undefined("the inline 'if' has no 'else' and its condition is false");
}

}  // namespace halo::jinja
