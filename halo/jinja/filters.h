// Filters (`value | name(arguments)`), tests (`value is name(arguments)`) and global functions.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "halo/jinja/arguments.h"
#include "halo/jinja/value.h"

namespace halo::jinja {

bool is_filter(std::string_view name);
Value apply_filter(Budget& budget, std::string_view name, const Value& value, Arguments arguments);

bool is_test(std::string_view name);
bool apply_test(Budget& budget, std::string_view name, const Value& value, Arguments arguments);

// "no filter named 'uper'; did you mean 'upper'?"
std::string no_filter(std::string_view name);
std::string no_test(std::string_view name);

// The function that a name stands for where no variable has it; undefined if there is none.
Value global_function(Budget& budget, std::string_view name);
Value call_global(Budget& budget, std::string_view name, Arguments arguments,
                  std::chrono::system_clock::time_point now);

// The filters of one file each.
using Filter = Value (*)(Budget&, const Value&, Arguments&&);
using FilterTable = std::map<std::string_view, Filter>;
const FilterTable& text_filters();
const FilterTable& sequence_filters();

}  // namespace halo::jinja
