// The generators against an oracle that reads the haystack, for several tokenizers and lengths.
#include "halo/eval/tasks/made/made.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "halo/eval/tasks/made/hay.h"
#include "halo/eval/tasks/tasks_testing.h"
#include "halo/eval/tasks/text.h"
#include "tests/places.h"

namespace halo::made {
namespace {

using testing::HasSubstr;

// What stands between two texts, the last time the first occurs.
std::string between(const std::string& text, const std::string& before, const std::string& after) {
  const size_t at = text.rfind(before);
  if (at == std::string::npos) return "";
  const size_t begin = at + before.size();
  return text.substr(begin, text.find(after, begin) - begin);
}

// All values that a text gives a key.
std::string values_of(const std::string& text, const std::string& key) {
  std::string values;
  const std::string needle = " for " + key + " is: ";
  for (size_t at = text.find(needle); at != std::string::npos; at = text.find(needle, at + 1)) {
    const size_t begin = at + needle.size();
    values += text.substr(begin, text.find('.', begin) - begin) + " ";
  }
  return values;
}

std::string answer_needles(const std::string& prompt) {
  std::string asked = between(prompt, " for ", " mentioned in the provided text ");
  std::string values;
  for (size_t at; (at = asked.find(", ")) != std::string::npos;) {
    values += values_of(prompt, asked.substr(0, at));
    asked = asked.substr(at + 2);
    if (asked.starts_with("and ")) asked = asked.substr(4);
  }
  return values + values_of(prompt, asked);
}

std::string answer_variables(const std::string& prompt) {
  const std::string value = between(prompt, "assigned the value ", " in the text above");
  std::set<std::string> names;
  const std::string task = prompt.substr(prompt.rfind("Memorize and track"));
  // Assignments stand in the order in which they follow from each other.
  for (size_t at = task.find("VAR "); at != std::string::npos; at = task.find("VAR ", at + 1)) {
    const std::vector<std::string> words = words_of(task.substr(at, task.find('\n', at) - at));
    if (words.size() < 4 || words[2] != "=") continue;
    if (words[3] == value || (words[3] == "VAR" && names.contains(words[4])))
      names.insert(words[1]);
  }
  std::string all;
  for (const std::string& name : names) all += name + " ";
  return all;
}

std::string most_frequent(const std::vector<std::string>& words, size_t count) {
  std::map<std::string, int> times;
  for (const std::string& word : words) ++times[word];
  std::vector<std::pair<int, std::string>> sorted;
  for (const auto& [word, n] : times) sorted.emplace_back(-n, word);
  std::ranges::sort(sorted);
  EXPECT_NE(sorted[count - 1].first, sorted[count].first) << "which are the most frequent is open";
  std::string all;
  for (size_t i = 0; i < count; ++i) all += sorted[i].second + " ";
  return all;
}

std::string answer_common_words(const std::string& prompt) {
  std::vector<std::string> words;
  for (const std::string& word :
       words_of(between(prompt, "that appear most often.\n", "\nQuestion:"))) {
    if (word.back() != '.') words.push_back(word);
  }
  return most_frequent(words, 10);
}

std::string answer_frequent_words(const std::string& prompt) {
  std::vector<std::string> words =
      words_of(between(prompt, "appeared coded words. ", "\nQuestion:"));
  std::erase(words, "...");
  return most_frequent(words, 3);
}

std::string answer_documents(const std::string& prompt) {
  const std::string stone = between(prompt, "Where is ", "? Answer:");
  return between(prompt, stone + " lies in ", " since");
}

std::string answer_document_number(const std::string& prompt) {
  const std::string text = between(prompt, "\n\nText: ", "\nMost relevant");
  const size_t at = prompt.find(":\n" + text + "\n\n");
  const size_t begin = prompt.rfind("Document ", at) + 9;
  return prompt.substr(begin, at - begin);
}

std::string answer_passkey(const std::string& prompt) {
  return between(prompt, "Remember it. ", " is the pass key.");
}

std::string answer_latent(const std::string& prompt) {
  const std::map<std::string, std::string> landmarks = {{"Paris", "the Eiffel Tower"},
                                                        {"London", "Big Ben"},
                                                        {"Rome", "the Colosseum"},
                                                        {"Berlin", "the Brandenburg Gate"},
                                                        {"Athens", "the Acropolis"},
                                                        {"Moscow", "the Kremlin"},
                                                        {"Barcelona", "the Sagrada Familia"},
                                                        {"New York", "the Statue of Liberty"},
                                                        {"San Francisco", "the Golden Gate Bridge"},
                                                        {"Istanbul", "the Hagia Sophia"},
                                                        {"Dubai", "the Burj Khalifa"},
                                                        {"Beijing", "the Forbidden City"},
                                                        {"Cape Town", "Table Mountain"},
                                                        {"Prague", "the Charles Bridge"},
                                                        {"Copenhagen", "the Little Mermaid statue"},
                                                        {"Seattle", "the Space Needle"}};
  const std::string city = between(prompt, "must have been to ", " is");
  const size_t at = prompt.find(" lives right beside " + landmarks.at(city) + ".");
  return prompt.substr(prompt.rfind(' ', at - 1) + 1, at - prompt.rfind(' ', at - 1) - 1);
}

std::string answer_notes(const std::string& prompt) {
  const std::vector<std::string> asked = words_of(between(prompt, "What does the ", " say, word"));
  const std::vector<std::string> ordinals = {"first", "second", "third",   "fourth",
                                             "fifth", "sixth",  "seventh", "eighth"};
  const auto wanted = std::ranges::find(ordinals, asked[0]) - ordinals.begin();
  const std::string note = "Note about the " + asked.back() + ": ";
  size_t at = prompt.find(note);
  for (int64_t i = 0; i < wanted; ++i) at = prompt.find(note, at + 1);
  return prompt.substr(at + note.size(), prompt.find('.', at) - at - note.size());
}

std::string oracle(const std::string& task, const std::string& prompt) {
  if (task == "passkey") return answer_passkey(prompt);
  if (task == "niah_latent") return answer_latent(prompt);
  if (task.starts_with("notes_")) return answer_notes(prompt);
  if (task == "ruler2_qa_basic") return answer_document_number(prompt);
  if (task == "ruler_vt") return answer_variables(prompt);
  if (task == "ruler_cwe") return answer_common_words(prompt);
  if (task == "ruler_fwe") return answer_frequent_words(prompt);
  if (task == "ruler_qa_squad" || task == "qa_squad_places") return answer_documents(prompt);
  return answer_needles(prompt);
}

class MadeTest : public testing::Test {
 protected:
  MadeTest() {
    std::string essays, questions;
    for (int e = 0; e < 20; ++e) {
      std::string text;
      for (int s = 0; s < 30; ++s) {
        const std::string name = Draws(Random(e, "name", s)).letters(6);
        text += fmt::format("What {} said of word {} was never {}. ", name, s, name.substr(0, 4));
      }
      essays += json::serialize(json::object{{"text", text}}) + "\n";
    }
    for (int q = 0; q < 400; ++q) {
      const std::string text =
          fmt::format("The stone of king {} lies in Town{} since the year {}.", q, q, 1000 + q);
      questions +=
          json::serialize(json::object{{"context", text},
                                       {"question", fmt::format("Where is stone of king {}?", q)},
                                       {"answers", {fmt::format("Town{}", q)}}}) +
          "\n";
    }
    write_file(data_ / "essays.jsonl", essays);
    write_file(data_ / "squad_v1.jsonl", questions);
  }

  MadeArgs args(std::vector<int64_t> lengths, int64_t count = 3, uint64_t seed = 0) const {
    return {data_.path(), std::move(lengths), count, seed};
  }

  test::Folder data_;
};

struct NamedTokenizer {
  std::string name;
  Tokenizer tokenizer;
};

std::vector<NamedTokenizer> tokenizers() {
  std::vector<NamedTokenizer> all;
  all.push_back({"bytes", Tokenizer(train_bpe({"a"}, 257, {"<|endoftext|>"}), "bytes")});
  all.push_back({"words", Tokenizer(test::words_tokenizer(), "words")});
  all.push_back({"more words", Tokenizer(train_bpe({kNoise}, 280, {}), "more words")});
  all.push_back({"demo", Tokenizer(test::source_dir() / "demo/teacher/tokenizer.json")});
  return all;
}

TEST_F(MadeTest, AnOracleAnswersEveryTaskAtEveryLength) {
  for (const auto& [tokenizer_name, tokenizer] : tokenizers()) {
    const bool small = tokenizer_name != "demo";  // tokens are all but bytes
    const CountTokens count = [&](const std::string& text) {
      return static_cast<int64_t>(tokenizer.encode(text).size());
    };
    std::vector<std::string> tasks = ruler_names();
    std::ranges::copy(ruler2_names(), std::back_inserter(tasks));
    std::ranges::copy(own_names(), std::back_inserter(tasks));
    for (const std::string& task : tasks) {
      const std::vector<int64_t> lengths = {3000, 9000};
      const std::vector<TaskItem> made = make_items(task, args(lengths, 2), count);
      ASSERT_EQ(made.size(), 2 * lengths.size());
      for (size_t i = 0; i < made.size(); ++i) {
        SCOPED_TRACE(fmt::format("{} {} {}", tokenizer_name, task, made[i].id));
        const GenerateRequest& request = made[i].generated.at(0);
        const Outcome outcome = made[i].judge({{}, {oracle(task, request.prompt)}});
        EXPECT_EQ(outcome.figures.at(0).name, std::to_string(lengths[i / 2]));
        EXPECT_EQ(outcome.figures.at(0).value, 1) << request.prompt.substr(0, 2000);
        EXPECT_EQ(made[i].judge({{}, {"nothing of this"}}).figures[0].value, 0);
        // Exact, and full but for less than one more unit of hay.
        const int64_t tokens = count(request.prompt);
        EXPECT_EQ(outcome.sample.at("tokens").to_number<int64_t>(), tokens);
        EXPECT_LE(tokens + request.max_tokens, lengths[i / 2]);
        EXPECT_GT(tokens + request.max_tokens, lengths[i / 2] - (small ? 200 : 120));
      }
    }
  }
}

TEST_F(MadeTest, ItemsFollowFromSeedTaskLengthAndIndex) {
  const CountTokens count = [](const std::string& text) {
    return static_cast<int64_t>(words_of(text).size());
  };
  const auto prompts = [&](const MadeArgs& a) {
    std::set<std::string> all;
    for (const TaskItem& item : make_items("niah_multivalue", a, count)) {
      all.insert(item.generated[0].prompt);
    }
    return all;
  };
  const std::set<std::string> once = prompts(args({1000}, 8));
  EXPECT_EQ(once.size(), 8u);
  EXPECT_EQ(prompts(args({1000}, 8)), once);
  // Fewer items are the first ones; another seed has none of them.
  EXPECT_TRUE(std::ranges::includes(once, prompts(args({1000}, 3))));
  std::vector<std::string> both;
  std::ranges::set_intersection(once, prompts(args({1000}, 8, 1)), std::back_inserter(both));
  EXPECT_TRUE(both.empty());
}

TEST_F(MadeTest, NeedlesStandAnywhere) {
  const CountTokens count = [](const std::string& text) {
    return static_cast<int64_t>(words_of(text).size());
  };
  for (const std::string& task : {"niah_single_1", "niah_single_2", "niah_multikey_2"}) {
    std::array<int, 4> quarters{};
    for (const TaskItem& item : make_items(task, args({800}, 40), count)) {
      const std::string& prompt = item.generated[0].prompt;
      const std::string key = between(prompt, " for ", " mentioned in the provided text ");
      const double depth = static_cast<double>(prompt.find(" for " + key + " is: ")) /
                           static_cast<double>(prompt.size());
      ++quarters[std::min(3, static_cast<int>(4 * depth))];
    }
    for (const int number : quarters) EXPECT_GE(number, 3) << task;
  }
}

TEST_F(MadeTest, SweptPlacesHaveAFigureOfTheirOwn) {
  const CountTokens count = [](const std::string& text) {
    return static_cast<int64_t>(words_of(text).size());
  };
  for (const char* task : {"passkey", "qa_squad_places"}) {
    const std::vector<TaskItem> made = make_items(task, args({900}, 5), count);
    double last = -1;
    for (size_t i = 0; i < made.size(); ++i) {
      const std::string& prompt = made[i].generated[0].prompt;
      const Outcome outcome = made[i].judge({{}, {oracle(task, prompt)}});
      ASSERT_EQ(outcome.figures.size(), 2u);
      EXPECT_EQ(outcome.figures[1].name, fmt::format("900@{}", static_cast<double>(i) / 4));
      const std::string answer(outcome.sample.at("answers").at(0).as_string());
      const std::string needle = answer + (task == std::string("passkey") ? "." : " since");
      const double depth =
          static_cast<double>(prompt.find(needle)) / static_cast<double>(prompt.size());
      EXPECT_NEAR(depth, static_cast<double>(i) / 4, 0.15) << task;
      EXPECT_GT(depth, last);
      last = depth;
    }
  }
}

TEST_F(MadeTest, APromptThatDoesNotFitIsAnError) {
  const CountTokens count = [](const std::string& text) {
    return static_cast<int64_t>(words_of(text).size());
  };
  EXPECT_THAT(test::error_of([&] { make_items("niah_single_1", args({150}), count); }),
              HasSubstr("niah_single_1 at 150 tokens: the shortest prompt has "));
}

TEST_F(MadeTest, AnyAnswerCountsForDocumentsAndTheShareElsewhere) {
  const CountTokens count = [](const std::string& text) {
    return static_cast<int64_t>(words_of(text).size());
  };
  const TaskItem item = make_items("niah_multivalue", args({800}, 1), count).at(0);
  const json::object sample = item.judge({{}, {""}}).sample;
  const json::array& answers = sample.at("answers").as_array();
  ASSERT_EQ(answers.size(), 4u);
  const std::string two = std::string(answers[0].as_string()) + std::string(answers[2].as_string());
  EXPECT_EQ(item.judge({{}, {two}}).figures[0].value, 0.5);
}

}  // namespace
}  // namespace halo::made
