// Draft tokens without a draft model ("prompt lookup"): where the last tokens stood before, in the
// prompt or in the answer, what followed them there is likely to follow again - in a summary with
// quotes, an edit of code, a table. The scheduler has several of them checked in one decoder call.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace halo {

// Sequences whose drafts are checked in one call; more of them fill it by themselves.
inline constexpr int64_t kMostDrafting = 4;

class DraftSource {
 public:
  // `most` tokens that may follow `tokens`, which are those of the call before and more. None where
  // their end is new, or while drafts do not pay.
  std::vector<int64_t> propose(std::span<const int64_t> tokens, int64_t most);
  // Of the last proposal, which was not empty, the first `right` came.
  void settle(int64_t right);

 private:
  static constexpr int64_t kGram = 3;        // tokens that must have stood before
  static constexpr int64_t kMemory = 65536;  // of the prompt, tokens from its end
  static constexpr int64_t kPays = 2;        // right ones that are worth a call of several tokens
  static constexpr int64_t kLongestPause = 256;

  std::unordered_map<uint64_t, int64_t> ends_;  // where each gram last ended, by its hash
  int64_t indexed_ = 0;                         // tokens whose grams are in ends_
  int64_t pause_ = 0, next_pause_ = 4;          // proposals that are left out
};

}  // namespace halo
