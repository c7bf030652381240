// Beginnings of sequences that may come again, with the state after them. A snapshot is a sequence
// of the engine that nobody extends: it shares full blocks with those that went on from it, and has
// a slot of its own. Known tokens are a tree, so that where two prompts part is found by either.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include "halo/engine/engine.h"

namespace halo {

class PrefixCache {
 public:
  // Keeps its snapshots in `engine`, which must outlive it.
  explicit PrefixCache(Engine& engine);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  struct Node;
  // Valid until the cache changes.
  struct Match {
    Node* node = nullptr;  // whose snapshot begins as the tokens do; null: none
    int64_t tokens = 0;    // of them that it saves
    int64_t common = 0;    // longest beginning of the tokens that is known, with a snapshot or not
    at::Tensor logits;     // [V] after all of the tokens, where all are saved
  };
  // The snapshot that saves most of `tokens`: all of them where it has the logits after them and
  // `most` allows it, else at most min(most, size - 1). Only what was put in with the same salt.
  Match find(uint64_t salt, std::span<const int64_t> tokens, int64_t most) const;
  // A sequence of the match's tokens; takes a slot, and a block where the last is not full.
  OwnedSequence start(const Match& match);

  bool contains(uint64_t salt, std::span<const int64_t> tokens, bool with_logits) const;
  // `sequence` is of these tokens; `logits` [V] after them or undefined. Where there is one already
  // that stays, and learns of the logits.
  void insert(uint64_t salt, std::span<const int64_t> tokens, OwnedSequence sequence,
              at::Tensor logits);
  // Drops the snapshot but `keep` that saves the least computing a byte, long unused ones first;
  // false where there is none.
  bool evict(const Node* keep = nullptr);

  int64_t size() const { return std::ssize(snapshots_); }

 private:
  struct Reach;
  Reach walk(uint64_t salt, std::span<const int64_t> tokens) const;
  double worth(const Node& node) const;
  void prune(uint64_t salt, Node* node);

  Engine& engine_;
  const StateBytes bytes_;
  std::map<uint64_t, std::unique_ptr<Node>> roots_;  // by salt
  std::map<int64_t, Node*> snapshots_;               // by when they were made
  int64_t next_serial_ = 0;
  double clock_ = 0;  // the worth of the snapshot dropped last: what was used since is worth more
};

}  // namespace halo
