// Python's operators on values. What Python raises as TypeError, ValueError and the like is an
// Error here; `.` and `[]` give an undefined value where Jinja does.
#pragma once

#include <compare>
#include <optional>
#include <string>

#include "halo/jinja/arguments.h"
#include "halo/jinja/value.h"

namespace halo::jinja {

bool equal(Budget& budget, const Value& a, const Value& b);
// Unordered: NaN is among them. An Error where Python has no order.
std::partial_ordering order(Budget& budget, const Value& a, const Value& b);
inline bool less(Budget& budget, const Value& a, const Value& b) {
  return order(budget, a, b) < 0;
}
bool contains(Budget& budget, const Value& container, const Value& item);

enum class Arithmetic { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
Value compute(Budget& budget, Arithmetic operation, const Value& a, const Value& b);
Value negative(const Value& value);

// The entry of `key`; an Error if it cannot be hashed.
std::optional<size_t> find_entry(Budget& budget, const Dict& dict, const Value& key);
Value get_attribute(Budget& budget, const Value& object, std::string_view name);
Value get_item(Budget& budget, const Value& object, const Value& key);
// object[from:to:step]; bounds that are not given are None.
Value get_slice(Budget& budget, const Value& object, const Value& from, const Value& to,
                const Value& step);

size_t length(Budget& budget, const Value& value);
// Items that live as long as this does, also in `for (item : iterate(...))`.
class Items {
 public:
  explicit Items(SequenceRef sequence) : sequence_(std::move(sequence)) {}

  auto begin() const { return sequence_->items.begin(); }
  auto end() const { return sequence_->items.end(); }
  bool empty() const { return sequence_->items.empty(); }
  size_t size() const { return sequence_->items.size(); }
  const Value& front() const { return sequence_->items.front(); }
  const Value& back() const { return sequence_->items.back(); }
  const Value& operator[](size_t i) const { return sequence_->items[i]; }

 private:
  SequenceRef sequence_;
};
// The items a loop would visit: characters, keys, ... An iterator is then used up.
Items iterate(Budget& budget, const Value& value);
// The items as a list of their own.
std::vector<Value> items_of(Budget& budget, const Value& value);
bool is_iterable(const Value& value);

// text % value and text.format(...).
std::string format_percent(Budget& budget, std::string_view text, const Value& value);
std::string format_braces(Budget& budget, std::string_view text, const Arguments& arguments);

// Where a slice or text method with Python's optional, possibly negative bound starts or ends.
size_t clamp_index(int64_t index, size_t size);

}  // namespace halo::jinja
