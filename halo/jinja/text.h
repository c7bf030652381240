// Text as Python sees it: positions count characters, space and case are Unicode's. All text is
// well-formed UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "halo/jinja/budget.h"

namespace halo::jinja {

inline constexpr size_t npos = std::string_view::npos;

size_t num_characters(std::string_view text);
// Where the character number `index` begins; text.size() for those behind the end.
size_t character_offset(std::string_view text, size_t index);
std::vector<std::string_view> characters(std::string_view text);

bool is_space(char32_t code);      // str.isspace
bool is_printable(char32_t code);  // repr leaves it as it is
enum class Case { kNone, kUpper, kLower, kTitle };
Case case_of(char32_t code);
bool is_letter(char32_t code);
bool is_decimal_digit(char32_t code);
bool is_digit(char32_t code);    // superscripts and the like too
bool is_numeric(char32_t code);  // a digit, fraction, Roman numeral, ...

enum class Side { kBoth, kLeft, kRight };
// Without the characters of `chars` at the ends; without spaces where there are none given.
std::string_view strip(std::string_view text, std::optional<std::string_view> chars, Side side);

// The first `needle` at or after `from`, in linear time.
size_t find_text(std::string_view text, std::string_view needle, size_t from = 0);
size_t find_last_text(std::string_view text, std::string_view needle);

// str.replace: the first `count` occurrences, all if it is negative. Charged as it grows.
std::string replaced(Budget& budget, std::string_view text, std::string_view old,
                     std::string_view now, int64_t count);

// Some letters, all of them of this case (str.isupper, str.islower).
bool is_all_of_case(std::string_view text, Case wanted);

// Lines as str.splitlines has them: \v, \f, U+2028 and others end a line too.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string title(std::string_view text);       // str.title: every word
std::string capitalize(std::string_view text);  // str.capitalize
std::string swap_case(std::string_view text);

}  // namespace halo::jinja
