// A sequence's state in a file (docs/formats/sequence.md).
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "halo/engine/engine.h"

namespace halo {

struct SequenceNote {
  std::string model;  // what names the weights, and must be the same where it is read
  std::string text;   // the caller's own
};

// `tokens` are the sequence's; `logits` [V] those after it, or undefined. A layer's state at a time
// is in memory beside the engine's.
void save_sequence(const std::filesystem::path& path, const Engine& engine, int64_t sequence,
                   std::span<const int64_t> tokens, const at::Tensor& logits,
                   const SequenceNote& note);

// How many tokens the sequence of a file has.
int64_t saved_tokens(const std::filesystem::path& path);

struct LoadedSequence {
  OwnedSequence sequence;
  std::vector<int64_t> tokens;
  at::Tensor logits;
  std::string text;
};
// An Error that names the file where it is of another model, another type of numbers or no such
// file, or where the engine has no room.
LoadedSequence load_sequence(const std::filesystem::path& path, Engine& engine,
                             const std::string& model);

}  // namespace halo
