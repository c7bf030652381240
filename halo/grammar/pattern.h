// Regular expressions of schemas.
#pragma once

#include <string>
#include <string_view>

namespace halo {

// `pattern` in a form of which XGrammar makes an automaton that writes nothing else: characters
// that JSON wants escaped, bytes that are no UTF-8. An Error that says what is in the way where
// there is none: XGrammar leaves assertions out, and where it must be a quote or a backslash bare
// ones through. What the classes \D, \W and \S are beyond ASCII, nobody agrees on: nothing here.
std::string exact_pattern(std::string_view pattern);

}  // namespace halo
