// Cuts text as the pattern of Qwen2 and Qwen3 does, one pass, no backtracking (README.md).
#pragma once

#include <cstddef>
#include <string_view>

namespace halo {

// The pattern as tokenizer.json writes it.
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

// End of the piece that starts at text[begin], begin < text.size(). `text` is well-formed UTF-8.
// Every character belongs to one piece.
size_t piece_end(std::string_view text, size_t begin);

}  // namespace halo
