#include "halo/eval/tasks/text.h"

#include <algorithm>
#include <map>

#include "halo/base/utf8.h"
#include "halo/tokenizer/unicode.h"

namespace halo {
namespace {

bool is_punctuation(char c) {
  return c > ' ' && c < '\x7f' && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') &&
         !(c >= 'a' && c <= 'z');
}

// Harmonic mean of the shares of words that both texts have.
double word_f1(const std::vector<std::string>& text, const std::vector<std::string>& answer) {
  std::map<std::string_view, int64_t> left;
  for (const std::string& word : answer) ++left[word];
  int64_t common = 0;
  for (const std::string& word : text) {
    const auto found = left.find(word);
    if (found == left.end() || found->second == 0) continue;
    --found->second;
    ++common;
  }
  if (common == 0) return 0;
  return 2.0 * static_cast<double>(common) / static_cast<double>(text.size() + answer.size());
}

}  // namespace

int64_t num_characters(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; });
}

std::string_view stripped(std::string_view text) {
  while (!text.empty() && is_space(code_at(text, 0).code)) text.remove_prefix(code_at(text, 0).end);
  while (!text.empty()) {
    const size_t last = code_before(text, text.size());
    if (!is_space(code_at(text, last).code)) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

std::string lower(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const CodeAt next = code_at(text, at);
    for (const char32_t code : to_lower(next.code)) {
      if (code != 0) append_utf8(code, out);
    }
    at = next.end;
  }
  return out;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  size_t begin = 0;
  for (size_t at = 0; at <= text.size();) {
    const CodeAt next = at < text.size() ? code_at(text, at) : CodeAt{U' ', at + 1};
    if (is_space(next.code)) {
      if (at > begin) words.emplace_back(text.substr(begin, at - begin));
      begin = next.end;
    }
    at = next.end;
  }
  return words;
}

std::string normalised_answer(std::string_view text) {
  std::string plain = lower(text);
  std::erase_if(plain, is_punctuation);
  // Articles are runs of word characters, whatever stands around them; white space takes their
  // place.
  std::string without;
  for (size_t at = 0; at < plain.size();) {
    size_t end = at;
    while (end < plain.size() && is_word(code_at(plain, end).code)) end = code_at(plain, end).end;
    if (end == at) end = code_at(plain, at).end;
    const std::string_view run(plain.data() + at, end - at);
    without += run == "a" || run == "an" || run == "the" ? " " : run;
    at = end;
  }
  std::string out;
  for (const std::string& word : words_of(without)) {
    if (!out.empty()) out += ' ';
    out += word;
  }
  return out;
}

AnswerScores score_answer(std::string_view text, const std::vector<std::string>& answers) {
  const std::string small = lower(text), normal = normalised_answer(text);
  const std::vector<std::string> words = words_of(normal);
  AnswerScores best;
  for (const std::string& answer : answers) {
    const std::string wanted = normalised_answer(answer);
    if (small.find(lower(answer)) != std::string::npos) best.contains = 1;
    if (normal == wanted) best.exact_match = 1;
    best.f1 = std::max(best.f1, word_f1(words, words_of(wanted)));
  }
  return best;
}

}  // namespace halo
