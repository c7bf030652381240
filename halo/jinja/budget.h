// What a template may use. A template comes with a model from anywhere, so each loop, copy and
// nesting is charged here, and a template that runs away ends with an Error that names the budget.
#pragma once

#include <cstddef>
#include <cstdint>

#include "halo/base/check.h"

namespace halo {

struct TemplateLimits {
  int64_t steps = 10'000'000;          // expressions and statements evaluated, elements visited
  int64_t bytes = int64_t{256} << 20;  // text and lists made, text searched and compared
  int64_t output = int64_t{64} << 20;  // bytes of the rendered text
  int64_t depth = 500;                 // evaluations inside each other, those of macros included
};

}  // namespace halo

namespace halo::jinja {

// Of lists in lists; JSON that is read has at most 64.
inline constexpr int kMaxValueDepth = 200;

class Budget {
 public:
  explicit Budget(const TemplateLimits& limits) : limits_(limits), left_(limits) {}

  void step(size_t count = 1) { charge(left_.steps, limits_.steps, count, "steps"); }
  void bytes(size_t count) { charge(left_.bytes, limits_.bytes, count, "bytes of text and lists"); }
  void output(size_t count) { charge(left_.output, limits_.output, count, "bytes of output"); }

  // One evaluation inside another, for as long as it lives.
  class Nested {
   public:
    explicit Nested(Budget& budget) : budget_(budget) {
      charge(budget.left_.depth, budget.limits_.depth, 1, "evaluations inside each other");
    }
    ~Nested() { ++budget_.left_.depth; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    Budget& budget_;
  };

 private:
  static void charge(int64_t& left, int64_t limit, size_t count, const char* what) {
    if (count > static_cast<size_t>(left)) [[unlikely]] {
      throw_error("the budget of {} {} is used up", limit, what);
    }
    left -= static_cast<int64_t>(count);
  }

  TemplateLimits limits_, left_;
};

}  // namespace halo::jinja
