// Needle documents: a sentence that hides a number inside other text, and a question about it at
// the end. Templates and words are tokenised once; after that documents are composed from ids
// alone.
//
// The answer is exactly 7 digit tokens. Every pattern we know leaves the space in front of a digit
// as a token of its own, so a question ends with that lone space.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "halo/base/random.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

inline constexpr int64_t kNeedleDigits = 7;

// Disjoint sets of key words and of numbers, so that what is reported was neither trained on nor
// searched with.
enum class NeedlePool { kTraining, kSearch, kReport };

// What a token of a needle document is (the marks of a token shard).
enum class NeedleMark : uint8_t { kText = 0, kAnswer = 1, kOwnDigits = 2 };

struct NeedleDocument {
  std::vector<int64_t> tokens;
  std::vector<uint8_t> marks;  // NeedleMark of every token
};

struct NeedleQuestion {
  std::string key;
  double depth = 0;          // where its needle stands, 0 start .. 1 end of the haystack
  int64_t prefix = 0;        // tokens of the haystack before the needle, shared by later questions
  std::vector<int64_t> ids;  // all after them: needle, rest of the haystack, "\nWhat is ... is "
  std::array<int64_t, kNeedleDigits> answer{};
};

// Several questions forked from one haystack, each with a needle of its own and no other: a prompt
// is the first `prefix` of `ids`, then the question's ids.
struct NeedleHaystack {
  std::vector<int64_t> ids;               // the text alone
  std::vector<NeedleQuestion> questions;  // by rising prefix
};

class NeedleWriter {
 public:
  // `document_end` as in Tokenizer::document_end. A tokenizer without single digit tokens is an
  // Error.
  explicit NeedleWriter(const Tokenizer& tokenizer, const std::string& document_end = "");

  // One needle at a uniform depth, its question, the answer and the end token: `total_length`
  // tokens in all. Takes the first tokens of `haystack` (total_length of them always suffice). Key,
  // depth and digits are draws of `random`.
  NeedleDocument compose(std::span<const int64_t> haystack, int64_t total_length,
                         const Random& random, NeedlePool pool) const;

  // One needle at each of `depths` (0 .. 1) with keys of its own. The longest prompt with its
  // answer has `total_length` tokens; no end token.
  NeedleHaystack compose_haystack(std::span<const int64_t> haystack, int64_t total_length,
                                  std::span<const double> depths, const Random& random,
                                  NeedlePool pool) const;

  // Does a text hold what a needle begins with? Text sampled from a model that was trained on
  // needle documents does, and is no haystack then: its needles would compete with ours.
  bool mentions_needle(std::span<const int64_t> text) const;

  // The fewest tokens a one-needle document can have beside its haystack, whatever its key.
  int64_t min_length() const { return min_length_; }
  int64_t end_token() const { return end_token_; }

  static std::vector<std::string> keys(NeedlePool pool);

 private:
  struct Needle {
    int64_t key;  // index into key_ids_
    std::array<int64_t, kNeedleDigits> digits;
  };
  // Takes the key out of `keys`.
  Needle draw(const Random& random, uint64_t first_index, NeedlePool pool,
              std::vector<int64_t>& keys) const;
  std::vector<int64_t> sentence(const Needle& needle) const;
  std::vector<int64_t> question(const Needle& needle) const;

  std::vector<int64_t> opening_, is_, stop_, question_opening_, question_middle_;
  std::vector<std::vector<int64_t>> key_ids_;  // of every word, all pools
  std::array<int64_t, 10> digits_{};
  int64_t end_token_ = 0, min_length_ = 0;
};

}  // namespace halo
