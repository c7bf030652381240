// Cuts text as the patterns of well-known tokenizers do: one pass, no backtracking (README.md).
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace halo {

enum class Pattern { kGpt2, kQwen2, kLlama3 };

// Patterns as tokenizer.json writes them.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

// Nothing if there is no scanner for that pattern.
std::optional<Pattern> known_pattern(std::string_view regex);

// End of the piece that starts at text[begin], begin < text.size(). `text` is well-formed UTF-8.
// Every character belongs to one piece.
size_t piece_end(Pattern pattern, std::string_view text, size_t begin);

}  // namespace halo
