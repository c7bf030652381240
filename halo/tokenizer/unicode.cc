#include "halo/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <map>
#include <span>

namespace halo {
namespace {

using detail::CharTable;

struct CodeRange {
  char32_t first, last;
};

// What Unicode 15.1 and 16 added: utf8proc knows it since 2.9 and 2.10.
constexpr CodeRange kNewLetters[] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3},
    {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389},
    {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
    {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA},
    {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
    {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
constexpr CodeRange kNewNumbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9},
                                     {0x16130, 0x16139}, {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9},
                                     {0x1E5F1, 0x1E5FA}};
constexpr CodeRange kNewMarks[] = {{0x897, 0x897},     {0x10D69, 0x10D6D}, {0x10EFC, 0x10EFC},
                                   {0x113B8, 0x113C0}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5},
                                   {0x113C7, 0x113CA}, {0x113CC, 0x113D0}, {0x113D2, 0x113D2},
                                   {0x113E1, 0x113E2}, {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F},
                                   {0x1E5EE, 0x1E5EF}};
// Letters in a circle or a square: symbols that Unicode calls alphabetic.
constexpr CodeRange kAlphabeticSymbols[] = {
    {0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
// What of Unicode 10 to 15 has a combining class or a decomposition.
constexpr CodeRange kYoung[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x107BA}, {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1CCD6, 0x1CCEF}, {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C},
    {0x1FBF0, 0x1FBF9}};

bool in(std::span<const CodeRange> ranges, char32_t code) {
  const auto after = std::ranges::upper_bound(ranges, code, {},
                                              [](const CodeRange& range) { return range.first; });
  return after != ranges.begin() && code <= (after - 1)->last;
}

struct Kind {
  CharClass kind;
  bool word;
};

Kind classify(char32_t code) {
  if (in(kNewLetters, code)) return {CharClass::kLetter, true};
  if (in(kNewNumbers, code)) return {CharClass::kNumber, true};
  if (in(kNewMarks, code)) return {CharClass::kOther, true};
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return {CharClass::kLetter, true};
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      return {CharClass::kNumber, true};
    case UTF8PROC_CATEGORY_NO:
      return {CharClass::kNumber, false};
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return {CharClass::kSpace, false};
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
      return {CharClass::kOther, true};
    default:
      if (code < 128) return {detail::classify_ascii(code), false};
      if (code == 0x85) return {CharClass::kSpace, false};
      return {CharClass::kOther, code == 0x200C || code == 0x200D || in(kAlphabeticSymbols, code)};
  }
}

bool is_young_in_tables(char32_t code) {
  return in(kYoung, code) || in(kNewLetters, code) || in(kNewNumbers, code) || in(kNewMarks, code);
}

constexpr bool is_hangul_syllable(char32_t code) {
  return code >= 0xAC00 && code <= 0xD7A3;
}
constexpr bool is_joining_jamo(char32_t code) {
  return (code >= 0x1161 && code <= 0x1175) || (code >= 0x11A7 && code <= 0x11C2);
}

// Canonical decomposition, of at most 4 characters.
std::span<utf8proc_int32_t> decompose(char32_t code, std::array<utf8proc_int32_t, 8>& parts) {
  int boundary = 0;
  const auto count = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(code), parts.data(), parts.size(),
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
  return {parts.data(), static_cast<size_t>(std::clamp<utf8proc_ssize_t>(count, 0, 8))};
}

// Planes 4 to 13, 15 and 16 hold nothing that we ask about.
constexpr bool is_plain_block(uint32_t block) {
  return (block >= 0x400 && block < 0xE00) || block >= 0xF00;
}

// Marks `code` as not inert if it is not its own form C, and what it ends in as joining the
// character before.
void note_composition(char32_t code, std::vector<uint8_t>& flags) {
  if (is_hangul_syllable(code) || is_young_in_tables(code)) return;
  std::array<utf8proc_int32_t, 8> parts;
  const auto decomposed = decompose(code, parts);
  if (decomposed.size() == 1 && decomposed[0] == static_cast<utf8proc_int32_t>(code)) return;
  const auto last = static_cast<char32_t>(decomposed.back());
  std::array<utf8proc_int32_t, 8> composed = parts;
  const auto size =
      utf8proc_normalize_utf32(composed.data(), static_cast<utf8proc_ssize_t>(decomposed.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const bool whole = size == 1 && composed[0] == static_cast<utf8proc_int32_t>(code);
  flags[whole ? last : code] &= static_cast<uint8_t>(~detail::kInertBit);
}

CharTable make_table() {
  std::vector<uint8_t> flags(0x110000, static_cast<uint8_t>(CharClass::kOther) | detail::kInertBit);
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (is_plain_block(code >> 8)) continue;
    const auto [kind, word] = classify(code);
    uint8_t bits = static_cast<uint8_t>(kind) | (word ? detail::kWordBit : 0);
    if (is_young_in_tables(code)) {
      bits |= detail::kYoungBit | detail::kInertBit;
    } else if (!is_joining_jamo(code) &&
               utf8proc_get_property(static_cast<utf8proc_int32_t>(code))->combining_class == 0) {
      bits |= detail::kInertBit;
    }
    flags[code] = bits;
  }
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (!is_plain_block(code >> 8)) note_composition(code, flags);
  }
  CharTable table;
  std::map<std::array<uint8_t, 256>, uint16_t> known;
  for (size_t block = 0; block < table.block.size(); ++block) {
    std::array<uint8_t, 256> bytes;
    std::copy_n(flags.begin() + static_cast<int64_t>(block << 8), 256, bytes.begin());
    const auto [place, added] = known.emplace(bytes, static_cast<uint16_t>(table.blocks.size()));
    if (added) table.blocks.push_back(bytes);
    table.block[block] = place->second;
  }
  return table;
}

// Cased letters that came after Unicode 15, by upper case.
struct CasePairs {
  char32_t first, last;
  int32_t to_lower;
};
constexpr CasePairs kNewCases[] = {{0x1C89, 0x1C89, 1},      {0xA7CB, 0xA7CB, 0x264 - 0xA7CB},
                                   {0xA7CC, 0xA7CC, 1},      {0xA7CE, 0xA7CE, 1},
                                   {0xA7D2, 0xA7D2, 1},      {0xA7D4, 0xA7D4, 1},
                                   {0xA7DA, 0xA7DA, 1},      {0xA7DC, 0xA7DC, 0x19B - 0xA7DC},
                                   {0x10D50, 0x10D65, 0x20}, {0x16EA0, 0x16EB8, 0x1B}};

}  // namespace

const CharTable& CharTable::get() {
  static const CharTable table = make_table();
  return table;
}

int combining_class(char32_t code) {
  return is_young(code)
             ? 0
             : utf8proc_get_property(static_cast<utf8proc_int32_t>(code))->combining_class;
}

std::array<char32_t, 2> to_lower(char32_t code) {
  if (code == 0x130) return {U'i', 0x307};
  for (const CasePairs& pairs : kNewCases) {
    if (code >= pairs.first && code <= pairs.last)
      return {static_cast<char32_t>(static_cast<int32_t>(code) + pairs.to_lower), 0};
  }
  return {static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))), 0};
}

}  // namespace halo
