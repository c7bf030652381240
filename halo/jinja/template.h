// A Jinja template: the part of the language that chat templates use (README.md), with budgets.
#pragma once

#include <boost/json.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "halo/jinja/budget.h"

namespace halo::jinja {

class Template {
 public:
  // An Error gives NAME:LINE:COLUMN and what is wrong there or not supported.
  Template(std::string_view source, std::string name);

  // Safe from many threads at once. An Error, also one that the template raises itself, gives
  // NAME:LINE:COLUMN; one about a variable's value names the variable. `now` is what strftime_now
  // tells.
  std::string render(
      const boost::json::object& variables, const TemplateLimits& limits = {},
      std::chrono::system_clock::time_point now = std::chrono::system_clock::now()) const;

 private:
  struct Parsed;
  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace halo::jinja
