// The variables of a template while it runs: a scope for each loop's iteration, macro call and
// block, inside those around it where it stands in the text.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <memory>
#include <string_view>
#include <vector>

#include "halo/jinja/ast.h"
#include "halo/jinja/value.h"

namespace halo::jinja {

struct Scope {
  Scope* parent = nullptr;
  boost::unordered_flat_map<std::string_view, Value> variables;  // names live in the template
  bool captured = false;  // a macro may look into it when it is over
};

// A macro and the scope it was defined in.
struct MacroClosure {
  const Macro* macro;
  Scope* scope;
};

struct RecursiveLoop {
  const For* statement;
  Scope* scope;  // around the loop
};

// The innermost scope, and all that must outlive theirs.
class Scopes {
 public:
  explicit Scopes(Budget& budget) : budget_(budget) {}

  Scope* innermost() const { return innermost_; }

  const Value* find(std::string_view name) const {
    for (const Scope* scope = innermost_; scope; scope = scope->parent) {
      const auto found = scope->variables.find(name);
      if (found != scope->variables.end()) return &found->second;
    }
    return nullptr;
  }

  void set(std::string_view name, Value value) {
    if (innermost_->captured) budget_.bytes(kVariableBytes);
    innermost_->variables.insert_or_assign(name, std::move(value));
  }

  const MacroClosure* close(const Macro& macro) {
    for (Scope* scope = innermost_; scope && !scope->captured; scope = scope->parent) {
      scope->captured = true;
      budget_.bytes(sizeof(Scope) + scope->variables.size() * kVariableBytes);
    }
    budget_.bytes(sizeof(MacroClosure));
    closures_.push_back(std::make_unique<MacroClosure>(MacroClosure{&macro, innermost_}));
    return closures_.back().get();
  }

  // A new innermost scope inside `parent`, for as long as this lives.
  class Inside {
   public:
    Inside(Scopes& scopes, Scope* parent)
        : scopes_(scopes), before_(scopes.innermost_), scope_(std::make_unique<Scope>()) {
      scope_->parent = parent;
      scopes_.innermost_ = scope_.get();
    }
    explicit Inside(Scopes& scopes) : Inside(scopes, scopes.innermost_) {}
    ~Inside() {
      scopes_.innermost_ = before_;
      if (scope_->captured) scopes_.kept_.push_back(std::move(scope_));
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    Scopes& scopes_;
    Scope* before_;
    std::unique_ptr<Scope> scope_;
  };

 private:
  // Other scopes end before they can become many.
  static constexpr size_t kVariableBytes = 2 * (sizeof(std::string_view) + sizeof(Value));

  Budget& budget_;
  Scope* innermost_ = nullptr;
  std::vector<std::unique_ptr<Scope>> kept_;
  std::vector<std::unique_ptr<MacroClosure>> closures_;
};

}  // namespace halo::jinja
