// What an expression of a template can be: Python's values, as far as templates meet them. Text and
// containers are shared and never change once made; only namespaces and loops have a state, and
// those cannot be stored where they could come to hold themselves.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "halo/jinja/budget.h"

namespace halo::jinja {

class Value;
struct String;
struct Sequence;
struct Dict;
struct Namespace;
struct Loop;
struct Callable;

struct None {};
// A name or an element that is not there. It prints as nothing; most uses of it are errors.
struct Undefined {
  std::shared_ptr<const std::string> why;
};

using StringRef = std::shared_ptr<const String>;
using SequenceRef = std::shared_ptr<const Sequence>;
using DictRef = std::shared_ptr<const Dict>;
using NamespaceRef = std::shared_ptr<Namespace>;
using LoopRef = std::shared_ptr<Loop>;
using CallableRef = std::shared_ptr<const Callable>;

class Value {
 public:
  Value() = default;  // undefined
  Value(None none) : data_(none) {}
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(StringRef value) : data_(std::move(value)) {}
  Value(SequenceRef value) : data_(std::move(value)) {}
  Value(DictRef value) : data_(std::move(value)) {}
  Value(NamespaceRef value) : data_(std::move(value)) {}
  Value(LoopRef value) : data_(std::move(value)) {}
  Value(CallableRef value) : data_(std::move(value)) {}
  Value(const void*) = delete;  // would be a bool

  static Value undefined(std::string why) {
    Value value;
    std::get<Undefined>(value.data_).why = std::make_shared<const std::string>(std::move(why));
    return value;
  }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_string() const { return std::holds_alternative<StringRef>(data_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  // Python's numbers: bools are two of them.
  bool is_number() const { return is_integral() || is_float(); }
  bool is_integral() const { return is_bool() || is_integer(); }

  // Null where the value is of another kind.
  const String* string() const { return pointer<StringRef>(); }
  const Sequence* sequence() const { return pointer<SequenceRef>(); }
  const Dict* dict() const { return pointer<DictRef>(); }
  const Callable* callable() const { return pointer<CallableRef>(); }
  Namespace* name_space() const { return pointer<NamespaceRef>(); }
  Loop* loop() const { return pointer<LoopRef>(); }
  SequenceRef sequence_ref() const {
    const auto* ref = std::get_if<SequenceRef>(&data_);
    return ref ? *ref : nullptr;
  }

  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const {  // of an integral value
    return is_bool() ? int64_t{boolean()} : std::get<int64_t>(data_);
  }
  double number() const {  // of a number
    return is_float() ? std::get<double>(data_) : static_cast<double>(integer());
  }
  const std::string& text() const;           // of a string
  const std::string& undefined_why() const;  // of an undefined value

  // The identity of what is shared, null for what is not; for `sameas`.
  const void* address() const;

 private:
  template <class Ref>
  auto pointer() const -> decltype(std::declval<Ref>().get()) {
    const auto* ref = std::get_if<Ref>(&data_);
    return ref ? ref->get() : nullptr;
  }

  std::variant<Undefined, None, bool, int64_t, double, StringRef, SequenceRef, DictRef,
               NamespaceRef, LoopRef, CallableRef>
      data_;
};

struct String {
  std::string text;   // well-formed UTF-8
  bool safe = false;  // came through `safe` or `escape`: text added to it would be escaped
};

struct Sequence {
  enum class Kind { kList, kTuple, kRange, kKeys, kValues, kItems, kIterator };
  Kind kind;
  std::vector<Value> items;
  int depth;         // 1 + that of the deepest item
  bool holds_state;  // a namespace or a loop is somewhere in it
  // Of a kIterator, which can be gone through once: how many items are taken, and whether a loop
  // is, or broke off, in the middle of it.
  mutable size_t taken = 0;
  mutable bool running = false;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;          // in order of insertion
  std::unordered_map<std::string_view, size_t> strings;  // key that is a string -> entry
  int depth;
  bool holds_state;

  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

struct RecursiveLoop;  // renderer.cc
struct MacroClosure;

// The variable `loop`.
struct Loop {
  std::vector<Value> items;    // those that are known to come
  std::function<bool()> pull;  // of a loop with a filter: adds the next item, if there is one
  int64_t index = 0;           // from 0
  int64_t depth = 0;           // of a recursive loop, from 0
  const RecursiveLoop* recursive = nullptr;
  Value changed;  // what `changed` was last asked, a tuple

  bool has(int64_t i) {
    while (pull && static_cast<int64_t>(items.size()) <= i) {
      if (!pull()) pull = nullptr;
    }
    return i < static_cast<int64_t>(items.size());
  }
  int64_t length() {
    while (pull) has(items.size());
    return items.size();
  }
};

struct Callable {
  enum class Kind { kGlobal, kMethod, kMacro };
  Kind kind;
  std::string name;
  Value self;                           // of a kMethod
  const MacroClosure* macro = nullptr;  // of a kMacro
};

Value make_string(Budget& budget, std::string text, bool safe = false);
Value make_sequence(Budget& budget, Sequence::Kind kind, std::vector<Value> items);
inline Value make_list(Budget& budget, std::vector<Value> items) {
  return make_sequence(budget, Sequence::Kind::kList, std::move(items));
}
inline Value make_tuple(Budget& budget, std::vector<Value> items) {
  return make_sequence(budget, Sequence::Kind::kTuple, std::move(items));
}
// Of equal keys the last value counts, in the first one's place. Keys must be hashable.
Value make_dict(Budget& budget, std::vector<std::pair<Value, Value>> entries);
Value make_method(const Value& self, std::string_view name);
// An unsigned integer that needs 64 bits is refused. Larger ones are to be refused where the text
// is parsed (HugeIntegers in base/json.h): here they are floats.
Value from_json(Budget& budget, const boost::json::value& json);

bool is_true(const Value& value);
bool holds_state(const Value& value);
// "str", "dict", ... as Python's messages say it.
std::string_view type_name(const Value& value);
// An Error for lists and mappings, which cannot be keys.
void require_hashable(const Value& key);
// Throws what an undefined value has to say; does nothing for others.
void require_defined(const Value& value);

}  // namespace halo::jinja
