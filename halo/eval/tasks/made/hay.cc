#include "halo/eval/tasks/made/hay.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_set>

#include "halo/eval/tasks/item_file.h"
#include "halo/eval/tasks/text.h"

namespace halo::made {

std::vector<std::string> essay_words(const std::filesystem::path& directory) {
  std::vector<std::string> words;
  read_items(directory, "essays", 0, [&](const ItemLine& line) {
    std::ranges::move(words_of(line.text("text")), std::back_inserter(words));
  });
  return words;
}

std::vector<std::string> sentences_of(const std::vector<std::string>& words, int64_t count) {
  std::vector<std::string> sentences;
  bool open = false;
  for (int64_t i = 0; i < count; ++i) {
    const std::string& word = words[i % words.size()];
    if (open) {
      sentences.back() += " " + word;
    } else {
      sentences.push_back(word);
    }
    const char last = word.back();
    open = last != '.' && last != '?' && last != '!';
  }
  return sentences;
}

std::vector<std::string> plain_words(const std::vector<std::string>& words) {
  std::unordered_set<std::string_view> seen;
  std::vector<std::string> plain;
  for (const std::string& word : words) {
    if (word.size() < 3 ||
        !std::ranges::all_of(word, [](char c) { return c >= 'a' && c <= 'z'; })) {
      continue;
    }
    if (seen.insert(word).second) plain.push_back(word);
  }
  return plain;
}

std::string hide_in_essays(const std::vector<std::string>& essays, int64_t words,
                           const std::vector<std::string>& needles, Draws& draws) {
  constexpr int64_t kDepths = 40;
  const std::vector<std::string> sentences = sentences_of(essays, words);
  std::vector<int64_t> depths = draws.sample(kDepths, static_cast<int64_t>(needles.size()));
  std::ranges::sort(depths);
  std::vector<std::string> all;
  size_t next = 0;
  for (size_t s = 0; s <= sentences.size(); ++s) {
    for (; next < needles.size() && sentences.size() * depths[next] / (kDepths - 1) == s; ++next) {
      all.push_back(needles[next]);
    }
    if (s < sentences.size()) all.push_back(sentences[s]);
  }
  return fmt::format("{}", fmt::join(all, " "));
}

}  // namespace halo::made
