#include "halo/data/needle.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "halo/base/check.h"
#include "halo/data/needle_words.h"

namespace halo {

namespace {

constexpr int64_t kPools = 3;
constexpr std::string_view kOpening = " The secret number of";
// Stands before a text that is tokenised as the continuation of another one.
constexpr std::string_view kTextBefore = "a";
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

NeedleWriter::NeedleWriter(const Tokenizer& tokenizer, std::optional<int64_t> document_begin,
                           const std::string& document_end)
    : tokenizer_(&tokenizer),
      begin_token_(document_begin),
      end_token_(tokenizer.document_end(document_end)),
      before_(tokenizer.encode(kTextBefore)) {
  opening_ = continued(kOpening);
  for (int64_t key = 0; key < static_cast<int64_t>(kNeedleWords.size()); ++key) {
    const Needle needle{key, "1234567"};
    int64_t length = num_begin() + 1;
    for (const Telling& telling : {sentence(needle), question(needle)}) {
      // Other digits may be more tokens: one each, and one for the space in front of them.
      const bool own_space = tokenizer.token_bytes(telling.ids[telling.first]).starts_with(' ');
      length += static_cast<int64_t>(telling.ids.size()) - telling.num_digits() + kNeedleDigits +
                (own_space ? 1 : 0);
    }
    min_length_ = std::max(min_length_, length);
  }
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
  needle.digits =
      fmt::format("{:0{}}", draw_number(random, first_index + kNumberDraw, pool), kNeedleDigits);
  return needle;
}

std::vector<int64_t> NeedleWriter::continued(std::string_view text) const {
  std::vector<int64_t> ids = tokenizer_->encode(fmt::format("{}{}", kTextBefore, text));
  const auto [end, unused] = std::ranges::mismatch(ids, before_);
  if (end - ids.begin() < std::ssize(before_)) return tokenizer_->encode(text);
  ids.erase(ids.begin(), end);
  return ids;
}

NeedleWriter::Telling NeedleWriter::tell(const std::string& text, const std::string& digits) const {
  Telling telling{continued(text)};
  std::string bytes;
  std::vector<size_t> ends;  // of each token in `bytes`
  for (const int64_t id : telling.ids) {
    bytes += tokenizer_->token_bytes(id);
    ends.push_back(bytes.size());
  }
  const size_t at = bytes.rfind(digits);
  if (at == std::string::npos) {
    throw_error("needles: the tokenizer makes '{}' of '{}'; use one that keeps digits", bytes,
                text);
  }
  telling.first = std::ranges::upper_bound(ends, at) - ends.begin();
  telling.last = std::ranges::lower_bound(ends, at + digits.size()) - ends.begin() + 1;
  return telling;
}

NeedleWriter::Telling NeedleWriter::sentence(const Needle& needle) const {
  return tell(fmt::format("{} {} is {}.", kOpening, kNeedleWords[needle.key], needle.digits),
              needle.digits);
}

NeedleWriter::Telling NeedleWriter::question(const Needle& needle) const {
  const std::string_view key = kNeedleWords[needle.key];
  return tell(fmt::format("\nWhat is the secret number of {}?{} {} is {}", key, kOpening, key,
                          needle.digits),
              needle.digits);
}

std::vector<int64_t> NeedleWriter::haystack_text(
    int64_t count, int64_t period,
    const std::function<void(int64_t position, int64_t n, int64_t* out)>& read) const {
  std::vector<int64_t> text, chunk(count);
  for (int64_t position = 0; std::ssize(text) < count; position += count) {
    if (position >= period && text.empty()) break;
    read(position, count, chunk.data());
    std::ranges::copy_if(chunk, std::back_inserter(text), [&](int64_t t) { return is_text(t); });
  }
  if (!text.empty()) text.resize(count);
  return text;
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
  const Telling told = sentence(needle), asked = question(needle);
  const int64_t text =
      total_length - num_begin() - std::ssize(told.ids) - std::ssize(asked.ids) - 1;
  HALO_CHECK(text >= 0 && text <= std::ssize(haystack),
             "needle: a document of {} tokens needs {} of a haystack of {}", total_length, text,
             haystack.size());
  const int64_t at = insertion_point(random.uniform(kDepthDraw), text);

  NeedleDocument document;
  std::vector<int64_t>& tokens = document.tokens;
  std::vector<uint8_t>& marks = document.marks;
  const auto add = [&](std::span<const int64_t> ids) {
    append(tokens, ids);
    marks.resize(tokens.size(), static_cast<uint8_t>(NeedleMark::kText));
  };
  const auto add_marked = [&](const Telling& telling, NeedleMark mark) {
    const auto begin = std::ssize(marks);
    add(telling.ids);
    std::fill(marks.begin() + begin + telling.first, marks.begin() + begin + telling.last,
              static_cast<uint8_t>(mark));
  };
  if (begin_token_) add({&*begin_token_, 1});
  add(haystack.first(at));
  add_marked(told, NeedleMark::kOwnDigits);
  add(haystack.subspan(at, text - at));
  add_marked(asked, NeedleMark::kAnswer);
  add({&end_token_, 1});
  return document;
}

NeedleHaystack NeedleWriter::compose_haystack(std::span<const int64_t> haystack,
                                              int64_t total_length, std::span<const double> depths,
                                              const Random& random, NeedlePool pool) const {
  std::vector<int64_t> words = pool_words(pool);
  HALO_CHECK(depths.size() <= words.size(), "needle: {} needles, but {} words", depths.size(),
             words.size());
  HALO_CHECK(std::ranges::is_sorted(depths), "needle: depths must rise");
  std::vector<Needle> needles;
  std::vector<Telling> told, asked;
  int64_t longest = 0;
  for (size_t n = 0; n < depths.size(); ++n) {
    needles.push_back(draw(random, n * kDrawsPerNeedle, pool, words));
    told.push_back(sentence(needles[n]));
    asked.push_back(question(needles[n]));
    longest = std::max<int64_t>(longest, std::ssize(told[n].ids) + std::ssize(asked[n].ids));
  }
  const int64_t text = total_length - num_begin() - longest;
  HALO_CHECK(text >= 0 && text <= std::ssize(haystack),
             "needle: {} tokens need {} of a haystack of {}", total_length, text, haystack.size());
  NeedleHaystack result;
  if (begin_token_) result.ids.push_back(*begin_token_);
  append(result.ids, haystack.first(text));
  for (size_t n = 0; n < depths.size(); ++n) {
    const int64_t at = insertion_point(depths[n], text);
    const std::span<const int64_t> ids = asked[n].ids;
    NeedleQuestion forked{std::string(kNeedleWords[needles[n].key]),
                          depths[n],
                          num_begin() + at,
                          told[n].ids,
                          {ids.begin() + asked[n].first, ids.begin() + asked[n].last}};
    append(forked.ids, haystack.subspan(at, text - at));
    append(forked.ids, ids.first(asked[n].first));
    result.questions.push_back(std::move(forked));
  }
  return result;
}

}  // namespace halo
