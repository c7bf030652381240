#include "halo/jinja/renderer.h"

#include <algorithm>

#include "halo/jinja/evaluator.h"
#include "halo/jinja/operators.h"
#include "halo/jinja/show.h"

namespace halo::jinja {
namespace {

enum class Flow { kNext, kBreak, kContinue };

class Renderer : public Evaluator {
 public:
  Renderer(Budget& budget, std::chrono::system_clock::time_point now)
      : Evaluator(
            budget, now,
            [this](const MacroClosure& closure, Arguments arguments) {
              return call_macro(closure, std::move(arguments));
            },
            [this](const Loop& loop, Arguments arguments) {
              return call_loop(loop, std::move(arguments));
            }) {}

  std::string render(const Block& block,
                     const std::vector<std::pair<std::string, Value>>& variables) {
    const Scopes::Inside given(scopes_);
    for (const auto& [name, value] : variables) scopes_.set(name, value);
    const Scopes::Inside own(scopes_);
    std::string text;
    out_ = &text;
    run(block);
    return text;
  }

  size_t at() const { return at_; }

 private:
  void write(std::string_view text) {
    if (captures_ > 0) {
      budget_.bytes(text.size());
    } else {
      budget_.output(text.size());
    }
    *out_ += text;
  }

  Flow run(const Block& block) {
    for (const auto& statement : block) {
      budget_.step();
      const Budget::Nested nested(budget_);
      at_ = statement->at;
      const Flow flow = std::visit([&](const auto& node) { return run(node); }, statement->node);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  // What a block writes, in a scope of its own. A loop that the block leaves takes the text along.
  Flow capture(const Block& block, std::string& text) {
    const Scopes::Inside inside(scopes_);
    std::string* const before = std::exchange(out_, &text);
    ++captures_;
    const Flow flow = run(block);
    --captures_;
    out_ = before;
    return flow;
  }

  Flow run(const Text& node) {
    write(node.text);
    return Flow::kNext;
  }

  Flow run(const Print& node) {
    for (const ExpressionPtr& expression : node.values) {
      const Value value = evaluate(*expression);
      at_ = expression->at;
      write(to_text(budget_, value));
    }
    return Flow::kNext;
  }

  Flow run(const If& node) {
    for (const auto& [condition, body] : node.branches) {
      if (is_true(evaluate(*condition))) return run(body);
    }
    return run(node.otherwise);
  }

  Flow run(const For& node) {
    const size_t at = at_;
    const Value items = evaluate(*node.items);
    at_ = at;
    if (!node.recursive) return run_loop(node, items, nullptr, 0);
    const RecursiveLoop recursive{&node, scopes_.innermost()};
    std::string text;
    const Flow flow = run_recursive(recursive, items, 0, text);
    write(text);
    return flow;
  }

  Flow run_recursive(const RecursiveLoop& recursive, const Value& items, int64_t depth,
                     std::string& text) {
    const Budget::Nested nested(budget_);
    const Scopes::Inside inside(scopes_, recursive.scope);
    std::string* const before = std::exchange(out_, &text);
    ++captures_;
    const Flow flow = run_loop(*recursive.statement, items, &recursive, depth);
    --captures_;
    out_ = before;
    return flow;
  }

  Value call_loop(const Loop& loop, Arguments arguments) {
    if (!loop.recursive) throw_error("a loop that is called must be marked 'recursive'");
    const Bound bound("loop", std::move(arguments), {"items"}, 1);
    std::string text;
    run_recursive(*loop.recursive, bound[0], loop.depth + 1, text);
    return make_string(budget_, std::move(text));
  }

  // Lets `loop` take only the items for which the filter holds, as late as Jinja looks at them: the
  // filter may ask for what the body of the loop has changed.
  void set_filter(Loop& loop, const For& node) {
    auto all = std::make_shared<std::vector<Value>>(std::move(loop.items));
    loop.items.clear();
    loop.pull = [this, &loop, &node, all, next = size_t{0},
                 around = scopes_.innermost()]() mutable {
      const size_t at = at_;
      while (next < all->size()) {
        const Value& item = (*all)[next++];
        const Scopes::Inside inside(scopes_, around);
        assign(node.target, item);
        if (!is_true(evaluate(*node.filter))) continue;
        loop.items.push_back(item);
        at_ = at;
        return true;
      }
      at_ = at;
      return false;
    };
  }

  Flow run_loop(const For& node, const Value& items, const RecursiveLoop* recursive,
                int64_t depth) {
    const auto loop = std::make_shared<Loop>();
    loop->items = items_of(budget_, items);
    loop->recursive = recursive;
    loop->depth = depth;
    if (node.filter) set_filter(*loop, node);
    const Sequence* iterator = items.sequence();
    if (iterator && iterator->kind == Sequence::Kind::kIterator) iterator->running = true;

    bool completed = false;  // some run of the body came to its end
    bool broken = false;
    for (; !broken && loop->has(loop->index); ++loop->index) {
      budget_.step();
      const Scopes::Inside inside(scopes_);
      const Value item = loop->items[loop->index];
      assign(node.target, item);
      scopes_.set("loop", loop);
      const Flow flow = run(node.body);
      broken = flow == Flow::kBreak;
      completed = completed || flow == Flow::kNext;
    }
    loop->pull = nullptr;
    if (iterator && !broken) iterator->running = false;
    if (completed) return Flow::kNext;
    const Scopes::Inside inside(scopes_);
    return run(node.otherwise);
  }

  void assign(const Target& target, const Value& value) {
    at_ = target.at;
    if (target.is_tuple) {
      const std::vector<Value> parts = items_of(budget_, value);
      if (parts.size() != target.parts.size()) {
        throw_error("{} values for {} names", parts.size(), target.parts.size());
      }
      for (size_t i = 0; i < parts.size(); ++i) assign(target.parts[i], parts[i]);
    } else if (target.attribute.empty()) {
      scopes_.set(target.name, value);
    } else {
      const Value* object = scopes_.find(target.name);
      Namespace* name_space = object ? object->name_space() : nullptr;
      if (!name_space) throw_error("'{}' is no namespace", target.name);
      if (holds_state(value)) {
        throw_error("a namespace or a loop inside a namespace is not supported");
      }
      budget_.bytes(target.attribute.size() + sizeof(Value));
      name_space->attributes.insert_or_assign(target.attribute, value);
    }
  }

  Flow run(const Set& node) {
    assign(node.target, evaluate(*node.value));
    return Flow::kNext;
  }

  Flow run(const SetBlock& node) {
    std::string text;
    if (const Flow flow = capture(node.body, text); flow != Flow::kNext) return flow;
    Value value = make_string(budget_, std::move(text));
    assign(node.target, node.filter ? filter_block(*node.filter, value) : value);
    return Flow::kNext;
  }

  Flow run(const FilterBlock& node) {
    std::string text;
    if (const Flow flow = capture(node.body, text); flow != Flow::kNext) return flow;
    const Value value = filter_block(*node.filter, make_string(budget_, std::move(text)));
    write(to_text(budget_, value));
    return Flow::kNext;
  }

  Flow run(const With& node) {
    // Values see the scope around, not the names before them.
    std::vector<Value> values;
    for (const auto& [target, value] : node.assignments) values.push_back(evaluate(*value));
    const Scopes::Inside inside(scopes_);
    for (size_t i = 0; i < values.size(); ++i) assign(node.assignments[i].first, values[i]);
    return run(node.body);
  }

  Flow run(const Generation& node) {
    const Scopes::Inside inside(scopes_);
    return run(node.body);
  }

  Flow run(const Break&) { return Flow::kBreak; }
  Flow run(const Continue&) { return Flow::kContinue; }

  Value closed(const Macro& macro) {
    return std::make_shared<const Callable>(
        Callable{Callable::Kind::kMacro, macro.name, Value(), scopes_.close(macro)});
  }

  Flow run(const Macro& node) {
    scopes_.set(node.name, closed(node));
    return Flow::kNext;
  }

  Flow run(const CallBlock& node) {
    const Value caller = closed(node.caller);
    const Value value = call(std::get<Call>(node.call->node), node.call->at, &caller);
    write(to_text(budget_, value));
    return Flow::kNext;
  }

  Value call_macro(const MacroClosure& closure, Arguments arguments) {
    const Budget::Nested nested(budget_);
    const Macro& macro = *closure.macro;
    const Scopes::Inside inside(scopes_, closure.scope);
    bind_parameters(macro, std::move(arguments));
    std::string text;
    capture(macro.body, text);
    return make_string(budget_, std::move(text));
  }

  static std::optional<Value> take_named(Arguments& arguments, std::string_view name) {
    const auto found = std::ranges::find(
        arguments.named, name, [](const auto& named) { return std::string_view(named.first); });
    if (found == arguments.named.end()) return std::nullopt;
    Value value = std::move(found->second);
    arguments.named.erase(found);
    return value;
  }

  // Sets the parameters in the innermost scope, which is the macro's.
  void bind_parameters(const Macro& macro, Arguments arguments) {
    const Signature& signature = macro.signature;
    std::vector<const Signature::Parameter*> missing;
    for (size_t i = 0; i < signature.parameters.size(); ++i) {
      const Signature::Parameter& parameter = signature.parameters[i];
      if (i < arguments.positional.size()) {
        scopes_.set(parameter.name, arguments.positional[i]);
      } else if (auto value = take_named(arguments, parameter.name)) {
        scopes_.set(parameter.name, *std::move(value));
      } else {
        missing.push_back(&parameter);
        scopes_.set(parameter.name, Value::undefined(fmt::format("parameter '{}' was not provided",
                                                                 parameter.name)));
      }
    }
    if (signature.takes_caller) {
      scopes_.set("caller",
                  take_named(arguments, "caller").value_or(Value::undefined("there is no caller")));
    }
    bind_rest(macro, std::move(arguments));
    for (const Signature::Parameter* parameter : missing) {
      if (parameter->otherwise) scopes_.set(parameter->name, evaluate(*parameter->otherwise));
    }
  }

  // What no parameter takes.
  void bind_rest(const Macro& macro, Arguments arguments) {
    const Signature& signature = macro.signature;
    if (signature.takes_kwargs) {
      std::vector<std::pair<Value, Value>> entries;
      for (auto& [name, value] : arguments.named) {
        entries.emplace_back(make_string(budget_, name), std::move(value));
      }
      scopes_.set("kwargs", make_dict(budget_, std::move(entries)));
    } else if (!arguments.named.empty()) {
      throw_error("the macro '{}' has no parameter '{}'", macro.name, arguments.named[0].first);
    }
    std::vector<Value>& rest = arguments.positional;
    rest.erase(rest.begin(), rest.begin() + std::min(rest.size(), signature.parameters.size()));
    if (signature.takes_varargs) {
      scopes_.set("varargs", make_tuple(budget_, std::move(rest)));
    } else if (!rest.empty()) {
      throw_error("the macro '{}' takes {} arguments at most", macro.name,
                  signature.parameters.size());
    }
  }

  std::string* out_ = nullptr;
  int captures_ = 0;
};

}  // namespace

std::string render_template(const Source& source, const Block& block,
                            std::vector<std::pair<std::string, Value>> variables, Budget& budget,
                            std::chrono::system_clock::time_point now) {
  Renderer renderer(budget, now);
  try {
    return renderer.render(block, variables);
  } catch (const Error& error) {
    source.fail(renderer.at(), "{}", error.what());
  }
}

}  // namespace halo::jinja
