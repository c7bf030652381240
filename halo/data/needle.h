// Needle documents: a sentence that hides a number inside other text, and a question about it at
// the end. A sentence and a question are tokenised whole, as they stand inside a text: a tokenizer
// that puts a space in front of a text puts none in front of them. A document begins with the begin
// token where documents have one (document_begin); inside it are neither begin nor end tokens.
//
// The answer is 7 digits, and as many tokens as the tokenizer makes of them: 7 where each digit is
// one, 3 where it takes three at a time. Those that hold a digit are the answer's, with the space
// in front where it belongs to the first of them; all before them is the question.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "halo/base/random.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

inline constexpr int64_t kNeedleDigits = 7;

// Disjoint sets of key words and of numbers, so that what is reported was neither trained on nor
// searched with.
enum class NeedlePool { kTraining, kSearch, kReport };

// What a token of a needle document, or of a conversation, is (the marks of a token shard). kAsked:
// it stands before the answer of a conversation.
enum class NeedleMark : uint8_t { kText = 0, kAnswer = 1, kOwnDigits = 2, kAsked = 3 };

struct NeedleDocument {
  std::vector<int64_t> tokens;
  std::vector<uint8_t> marks;  // NeedleMark of every token
};

struct NeedleQuestion {
  std::string key;
  double depth = 0;          // where its needle stands, 0 start .. 1 end of the haystack
  int64_t prefix = 0;        // tokens of the haystack before the needle, shared by later questions
  std::vector<int64_t> ids;  // all after them: needle, rest of the haystack, "\nWhat is ... is "
  std::vector<int64_t> answer;
};

// Several questions forked from one haystack, each with a needle of its own and no other: a prompt
// is the first `prefix` of `ids`, then the question's ids.
struct NeedleHaystack {
  std::vector<int64_t> ids;               // the begin token where there is one, and the text alone
  std::vector<NeedleQuestion> questions;  // by rising prefix
};

class NeedleWriter {
 public:
  // `tokenizer` must outlive this. `document_begin` as in halo::document_begin, `document_end` as
  // in Tokenizer::document_end.
  explicit NeedleWriter(const Tokenizer& tokenizer,
                        std::optional<int64_t> document_begin = std::nullopt,
                        const std::string& document_end = "");

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

  // What a haystack may hold: all but begin and end tokens.
  bool is_text(int64_t token) const { return token != end_token_ && token != begin_token_; }
  // The first `count` such tokens of a text that repeats after `period` tokens; none where it has
  // none. read(position, n, out) gives its tokens from `position` on.
  std::vector<int64_t> haystack_text(
      int64_t count, int64_t period,
      const std::function<void(int64_t position, int64_t n, int64_t* out)>& read) const;

  // Does a text hold what a needle begins with? Text sampled from a model that was trained on
  // needle documents does, and is no haystack then: its needles would compete with ours.
  bool mentions_needle(std::span<const int64_t> text) const;

  // In a document of so many tokens there is room for any needle and its question.
  int64_t min_length() const { return min_length_; }

  static std::vector<std::string> keys(NeedlePool pool);

 private:
  struct Needle {
    int64_t key;  // index into kNeedleWords
    std::string digits;
  };
  // A text that tells a needle's digits.
  struct Telling {
    std::vector<int64_t> ids;
    int64_t first = 0, last = 0;  // ids[first .. last - 1] hold the digits
    int64_t num_digits() const { return last - first; }
  };
  // Takes the key out of `keys`.
  Needle draw(const Random& random, uint64_t first_index, NeedlePool pool,
              std::vector<int64_t>& keys) const;
  // The ids of `text` where it goes on from another text.
  std::vector<int64_t> continued(std::string_view text) const;
  Telling tell(const std::string& text, const std::string& digits) const;
  Telling sentence(const Needle& needle) const;
  Telling question(const Needle& needle) const;  // with the answer
  int64_t num_begin() const { return begin_token_ ? 1 : 0; }

  const Tokenizer* tokenizer_;
  std::optional<int64_t> begin_token_;
  int64_t end_token_ = 0, min_length_ = 0;
  std::vector<int64_t> opening_, before_;
};

}  // namespace halo
