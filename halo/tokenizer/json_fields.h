// Reading a tokenizer.json: objects whose every key must be known to us.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "halo/base/json.h"

namespace halo::tokenizer_json {

// Most lists of steps have two or three; their number bounds work and recursion.
inline constexpr size_t kMaxSteps = 32;
// A text that one step puts in or looks for.
inline constexpr size_t kMaxStepText = 1'024;

// object[key], or nullptr where it is absent or null.
const json::value* find(const json::object& object, std::string_view key);
const json::object& object_at(const json::object& object, std::string_view key,
                              const std::string& file);
const json::array& array_at(const json::object& object, std::string_view key,
                            const std::string& file);
// object[key] must be absent, null, or equal to `allowed`.
void check_default(const json::object& object, std::string_view owner, std::string_view key,
                   const json::value& allowed, const std::string& file);
// A text of 1 to kMaxStepText bytes.
std::string step_text(const json::object& object, std::string_view key, const std::string& file);
// A text of one character.
std::string character_at(const json::object& object, std::string_view key, const std::string& file);

// The components in the order in which they run: those of a Sequence, which names its list `key`,
// nested ones as well.
std::vector<const json::object*> flatten(const json::object& component, std::string_view key,
                                         const std::string& file);

}  // namespace halo::tokenizer_json
