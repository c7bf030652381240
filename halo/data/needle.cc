#include "halo/data/needle.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "halo/base/check.h"
#include "halo/data/needle_words.h"

namespace halo {

namespace {

constexpr int64_t kPools = 3;
// Draws of one needle: key, depth, number; the next needle's follow.
constexpr uint64_t kKeyDraw = 0, kDepthDraw = 1, kNumberDraw = 2, kDrawsPerNeedle = 16;

std::vector<int64_t> pool_words(NeedlePool pool) {
  std::vector<int64_t> words;
  const int64_t count = static_cast<int64_t>(kNeedleWords.size());
  for (int64_t i = static_cast<int64_t>(pool); i < count; i += kPools) words.push_back(i);
  return words;
}

// A 7-digit number of the pool. Times kSpread is one to one on the numbers below kNumbers, because
// kSpread shares no factor with 10; what it makes of those that are `pool` modulo 3 is the pool's
// third, and shows in no digit.
int64_t draw_number(const Random& random, uint64_t index, NeedlePool pool) {
  constexpr int64_t kNumbers = 10'000'000, kSpread = 6'180'339;
  const auto p = static_cast<int64_t>(pool);
  const int64_t count = (kNumbers - p + kPools - 1) / kPools;
  return (random.below(index, count) * kPools + p) * kSpread % kNumbers;
}

void append(std::vector<int64_t>& ids, std::span<const int64_t> more) {
  ids.insert(ids.end(), more.begin(), more.end());
}

// Positions of a haystack of `length` tokens.
int64_t insertion_point(double depth, int64_t length) {
  HALO_CHECK(depth >= 0 && depth <= 1, "needle: depth {} is not between 0 and 1", depth);
  return static_cast<int64_t>(std::llround(depth * static_cast<double>(length)));
}

}  // namespace

NeedleWriter::NeedleWriter(const Tokenizer& tokenizer, const std::string& document_end)
    : opening_(tokenizer.encode(" The secret number of")),
      is_(tokenizer.encode(" is ")),
      stop_(tokenizer.encode(".")),
      question_opening_(tokenizer.encode("\nWhat is the secret number of")),
      question_middle_(tokenizer.encode("?")),
      end_token_(tokenizer.document_end(document_end)) {
  append(question_middle_, opening_);
  for (int d = 0; d < 10; ++d) {
    const auto ids = tokenizer.encode(std::string(1, static_cast<char>('0' + d)));
    if (ids.size() != 1) {
      throw_error("needles: the tokenizer has no token for the digit {}; use one that has", d);
    }
    digits_[d] = ids.front();
  }
  size_t longest = 0;
  for (const auto word : kNeedleWords) {
    key_ids_.push_back(tokenizer.encode(fmt::format(" {}", word)));
    longest = std::max(longest, key_ids_.back().size());
  }
  const auto longest_key = std::find_if(key_ids_.begin(), key_ids_.end(),
                                        [&](const auto& ids) { return ids.size() == longest; });
  const Needle needle{longest_key - key_ids_.begin(), {}};
  min_length_ =
      static_cast<int64_t>(sentence(needle).size() + question(needle).size()) + kNeedleDigits + 1;
}

std::vector<std::string> NeedleWriter::keys(NeedlePool pool) {
  std::vector<std::string> words;
  for (const int64_t i : pool_words(pool)) words.emplace_back(kNeedleWords[i]);
  return words;
}

NeedleWriter::Needle NeedleWriter::draw(const Random& random, uint64_t first_index, NeedlePool pool,
                                        std::vector<int64_t>& words) const {
  const auto chosen =
      words.begin() + random.below(first_index + kKeyDraw, static_cast<int64_t>(words.size()));
  Needle needle{*chosen, {}};
  words.erase(chosen);
  int64_t number = draw_number(random, first_index + kNumberDraw, pool);
  for (int64_t i = kNeedleDigits; i-- > 0; number /= 10) needle.digits[i] = digits_[number % 10];
  return needle;
}

std::vector<int64_t> NeedleWriter::sentence(const Needle& needle) const {
  std::vector<int64_t> ids = opening_;
  append(ids, key_ids_[needle.key]);
  append(ids, is_);
  append(ids, needle.digits);
  append(ids, stop_);
  return ids;
}

std::vector<int64_t> NeedleWriter::question(const Needle& needle) const {
  std::vector<int64_t> ids = question_opening_;
  append(ids, key_ids_[needle.key]);
  append(ids, question_middle_);
  append(ids, key_ids_[needle.key]);
  append(ids, is_);
  return ids;
}

bool NeedleWriter::mentions_needle(std::span<const int64_t> text) const {
  // Without its first token, which may be written otherwise at a line's or a sentence's start.
  const auto begin = std::span(opening_).subspan(1);
  return std::search(text.begin(), text.end(), begin.begin(), begin.end()) != text.end();
}

NeedleDocument NeedleWriter::compose(std::span<const int64_t> haystack, int64_t total_length,
                                     const Random& random, NeedlePool pool) const {
  std::vector<int64_t> words = pool_words(pool);
  const Needle needle = draw(random, 0, pool, words);
  const auto told = sentence(needle), asked = question(needle);
  const int64_t text = total_length - kNeedleDigits - 1 - static_cast<int64_t>(told.size()) -
                       static_cast<int64_t>(asked.size());
  HALO_CHECK(text >= 0 && text <= static_cast<int64_t>(haystack.size()),
             "needle: a document of {} tokens needs {} of a haystack of {}", total_length, text,
             haystack.size());
  const int64_t at = insertion_point(random.uniform(kDepthDraw), text);

  NeedleDocument document;
  auto& tokens = document.tokens;
  append(tokens, haystack.first(at));
  append(tokens, told);
  append(tokens, haystack.subspan(at, text - at));
  append(tokens, asked);
  append(tokens, needle.digits);
  tokens.push_back(end_token_);

  auto& marks = document.marks;
  marks.assign(tokens.size(), static_cast<uint8_t>(NeedleMark::kText));
  const auto own = marks.begin() + at + static_cast<int64_t>(told.size() - stop_.size());
  std::fill(own - kNeedleDigits, own, static_cast<uint8_t>(NeedleMark::kOwnDigits));
  std::fill(marks.end() - 1 - kNeedleDigits, marks.end() - 1,
            static_cast<uint8_t>(NeedleMark::kAnswer));
  return document;
}

NeedleHaystack NeedleWriter::compose_haystack(std::span<const int64_t> haystack,
                                              int64_t total_length, std::span<const double> depths,
                                              const Random& random, NeedlePool pool) const {
  std::vector<int64_t> words = pool_words(pool);
  HALO_CHECK(depths.size() <= words.size(), "needle: {} needles, but {} words", depths.size(),
             words.size());
  HALO_CHECK(std::ranges::is_sorted(depths), "needle: depths must rise");
  NeedleHaystack result;
  std::vector<Needle> needles;
  int64_t longest = 0;
  for (size_t n = 0; n < depths.size(); ++n) {
    needles.push_back(draw(random, n * kDrawsPerNeedle, pool, words));
    longest = std::max(
        longest, static_cast<int64_t>(sentence(needles[n]).size() + question(needles[n]).size()));
  }
  const int64_t text = total_length - longest - kNeedleDigits;
  HALO_CHECK(text >= 0 && text <= static_cast<int64_t>(haystack.size()),
             "needle: {} tokens need {} of a haystack of {}", total_length, text, haystack.size());
  append(result.ids, haystack.first(text));
  for (size_t n = 0; n < depths.size(); ++n) {
    const int64_t at = insertion_point(depths[n], text);
    NeedleQuestion asked{std::string(kNeedleWords[needles[n].key]), depths[n], at,
                         sentence(needles[n]), needles[n].digits};
    append(asked.ids, haystack.subspan(at, text - at));
    append(asked.ids, question(needles[n]));
    result.questions.push_back(std::move(asked));
  }
  return result;
}

}  // namespace halo
