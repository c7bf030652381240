// Attributes and methods of values, as templates may use them: content.split('x'), tool.items(),
// loop.index0.
#pragma once

#include <string_view>

#include "halo/jinja/arguments.h"
#include "halo/jinja/value.h"

namespace halo::jinja {

// What Python's object has under a name, where it is no data of the template. Methods that would
// change the object are unsafe; those we have not built are unsupported, never absent.
enum class AttributeKind { kAbsent, kMethod, kUnsafe, kUnsupported };
AttributeKind attribute_kind(const Value& object, std::string_view name);

Value call_method(Budget& budget, const Value& self, const std::string& name, Arguments arguments);
bool is_text_method(std::string_view name);
Value call_text_method(Budget& budget, const String& self, const std::string& name,
                       Arguments arguments);

// loop.NAME; nothing if there is no such attribute.
std::optional<Value> loop_attribute(const Value& loop, std::string_view name);

}  // namespace halo::jinja
