// halo generate with many prompts, as users run it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "halo/base/files.h"
#include "halo/tokenizer/tokenizer.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

std::vector<json::object> lines_of(const std::string& text) {
  std::vector<json::object> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    out.push_back(parse_json(line, "output").as_object());
  }
  return out;
}

class Generate : public testing::Test {
 protected:
  Generate() { fs::copy(World::get().teacher(), model_); }
  ~Generate() override { fs::remove_all(folder_); }

  Outcome run(const std::string& lines, const Words& more = {}) const {
    write_file(folder_ / "in.jsonl", lines);
    Words words = {"generate",     model_.string(),
                   "--jsonl",      (folder_ / "in.jsonl").string(),
                   "--max-tokens", "6"};
    words.insert(words.end(), more.begin(), more.end());
    return run_halo(words);
  }
  std::vector<json::object> answers(const std::string& lines, const Words& more = {}) const {
    const Outcome outcome = run(lines, more);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return lines_of(outcome.out);
  }
  void refused(const std::string& lines, const std::vector<std::string>& parts) const {
    const Outcome outcome = run(lines);
    EXPECT_EQ(outcome.code, 1) << lines;
    EXPECT_EQ(outcome.out, "");
    for (const std::string& part : parts) EXPECT_THAT(outcome.err, testing::HasSubstr(part));
  }

  const fs::path folder_ = World::get().folder("generate_lines"), model_ = folder_ / "model";
};

TEST_F(Generate, LinesAreAnsweredInTheirOrderAsOneByOne) {
  const Tokenizer tokenizer(model_ / "tokenizer.json");
  const auto got = answers(R"({"prompt": "The old dog"}
{"prompt": "A", "max_tokens": 3, "temperature": 1, "seed": 4, "n": 2, "stop": null}

{"ids": [5, 6, 7], "logprobs": 2}
{"prompt": "A", "max_tokens": 3, "temperature": 1, "seed": 4}
{"prompt": "A", "max_tokens": 3, "temperature": 1}
{"prompt": "A", "max_tokens": 3, "temperature": 1, "seed": 4, "logit_bias": {"9": 1e6}}
)");
  ASSERT_EQ(got.size(), 6u);
  const std::string alone =
      output_of({"generate", model_.string(), "The old dog", "--max-tokens", "6"});
  EXPECT_EQ("The old dog" + std::string(got[0].at("text").as_string()) + "\n", alone);
  EXPECT_EQ(got[0].at("finish_reason"), "length");
  std::vector<int64_t> ids;
  for (const json::value& id : got[0].at("ids").as_array()) ids.push_back(id.as_int64());
  EXPECT_EQ(ids.size(), 6u);
  EXPECT_EQ(tokenizer.decode(ids, true), std::string(got[0].at("text").as_string()));

  const json::array& choices = got[1].at("choices").as_array();
  ASSERT_EQ(choices.size(), 2u);
  EXPECT_NE(choices[0], choices[1]);
  EXPECT_EQ(choices[0], json::value(got[3]));  // the same seed, so the first of them
  EXPECT_NE(json::value(got[4]), json::value(got[3]));

  const json::array& logprobs = got[2].at("logprobs").as_array();
  ASSERT_EQ(logprobs.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    const json::object& token = logprobs[i].as_object();
    EXPECT_EQ(token.at("id"), got[2].at("ids").as_array()[i]);
    EXPECT_EQ(token.at("top").as_array().size(), 2u);
    EXPECT_EQ(token.at("top").at(0).at("id"), token.at("id"));  // greedy
    EXPECT_EQ(token.at("top").at(0).at("logprob"), token.at("logprob"));
  }
  EXPECT_EQ(got[5].at("ids"), (json::array{9, 9, 9}));
}

TEST_F(Generate, LinesEndAtStopsAndEndTokens) {
  const std::string all(
      answers(R"({"prompt": "The old dog", "max_tokens": 20})")[0].at("text").as_string());
  ASSERT_GT(all.size(), 6u);
  const std::string stop = all.substr(4, 2);
  const auto stopped = answers(json::serialize(json::object{
      {"prompt", "The old dog"}, {"max_tokens", 20}, {"stop", json::array{"never", stop}}}))[0];
  EXPECT_EQ(stopped.at("text"), json::value(all.substr(0, all.find(stop))));
  EXPECT_EQ(stopped.at("finish_reason"), "stop");
  EXPECT_EQ(answers(R"({"prompt": "The old dog", "max_tokens": 20})", {"--stop", stop})[0],
            stopped);

  const json::value first = answers(R"({"prompt": "The old dog"})")[0].at("ids").as_array().front();
  write_json(model_ / "generation_config.json", json::object{{"eos_token_id", first}});
  const auto ended = answers(R"({"prompt": "The old dog"})")[0];
  EXPECT_EQ(ended.at("text"), "");
  EXPECT_EQ(ended.at("ids"), json::array());
  EXPECT_EQ(ended.at("finish_reason"), "stop");
  // As text it is printed, since it is no special token.
  const std::vector<int64_t> end = {first.as_int64()};
  EXPECT_EQ(output_of({"generate", model_.string(), "The old dog"}),
            "The old dog" + Tokenizer(model_ / "tokenizer.json").decode(end, true) + "\n");
}

TEST_F(Generate, IdsNeedNoTokenizer) {
  const auto with = answers(R"({"ids": [5, 6, 7]})")[0];
  fs::remove(model_ / "tokenizer.json");
  const auto without = answers(R"({"ids": [5, 6, 7]})")[0];
  EXPECT_EQ(without.at("ids"), with.at("ids"));
  EXPECT_TRUE(without.at("text").is_null());
  refused(R"({"prompt": "A"})", {"in.jsonl: line 1", "prompt", "tokenizer.json"});
  refused(R"({"ids": [1], "stop": "x"})", {"in.jsonl: line 1", "stop", "tokenizer.json"});
  const Outcome plain = run_halo({"generate", model_.string(), "A"});
  EXPECT_EQ(plain.code, 1);
  EXPECT_THAT(plain.err, testing::HasSubstr("tokenizer.json"));
}

TEST_F(Generate, AWrongLineIsNamedBeforeAnythingIsAnswered) {
  const std::string good = "{\"prompt\": \"A\"}\n";
  refused(good + R"({"prompt": "A", "max_token": 3})",
          {"in.jsonl: line 2: max_token", "did you mean 'max_tokens'"});
  refused(good + R"({"prompt": "A", "max_tokens": "3"})", {"line 2: max_tokens", "integer"});
  refused(good + R"({"prompt": "A", "max_tokens": 0})", {"line 2: max_tokens"});
  refused(good + R"({"prompt": "A", "top_p": 0})", {"line 2", "top_p"});
  refused(good + R"({"prompt": "A", "temperature": -1})", {"line 2: temperature"});
  refused(good + R"({"prompt": "A", "stop": ["a", ""]})", {"line 2", "stop string is empty"});
  refused(good + R"({"prompt": "A", "stop": 3})", {"line 2: stop"});
  refused(good + R"({"prompt": "A", "logit_bias": {"x": 1}})", {"line 2: logit_bias", "'x'"});
  refused(good + R"({"prompt": "A", "logit_bias": [1]})", {"line 2: logit_bias"});
  refused(good + R"({"prompt": ""})", {"line 2", "empty"});
  refused(good + R"({"ids": []})", {"line 2", "empty"});
  refused(good + R"({"ids": [100000]})", {"line 2", "100000", "vocabulary"});
  refused(good + R"({"ids": [1.5]})", {"line 2: ids", "entry 0"});
  refused(good + R"({"ids": [1], "prompt": "A"})", {"line 2", "either 'prompt' or 'ids'"});
  refused(good + R"({"n": 2})", {"line 2", "either 'prompt' or 'ids'"});
  refused(good + R"(["A"])", {"line 2"});
  refused(good + R"({"prompt": )", {"in.jsonl"});
}

// What a conversation prints, a line of `in` after another.
class Chat : public Generate {
 protected:
  Chat() { begin_answers_with("<answer>"); }
  // Answers as said before stand behind <assistant>.
  void begin_answers_with(const std::string& start) const {
    write_json(model_ / "tokenizer_config.json",
               json::object{{"chat_template",
                             "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
                             "{% if add_generation_prompt %}" +
                                 start + "{% endif %}"}});
  }
  Outcome chat(const std::string& in, const Words& more = {}) const {
    write_file(folder_ / "in.txt", in);
    Words words = {"chat", model_.string(), "--max-tokens", "8"};
    words.insert(words.end(), more.begin(), more.end());
    return run_halo(Process{.arguments = words, .standard_input = folder_ / "in.txt"});
  }
  std::string plain(const std::string& prompt) const {
    const std::string out = output_of({"generate", model_.string(), prompt, "--max-tokens", "8"});
    return out.substr(prompt.size());
  }
};

TEST_F(Chat, AnswersFollowFromAllThatWasSaid) {
  const std::string first = plain("<user>The old dog<answer>");
  const std::string said = first.substr(0, first.size() - 1);
  const std::string all = "<user>The old dog<assistant>" + said + "<user>A cat<answer>";
  const Outcome outcome = chat("The old dog\nA cat\n");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, first + plain(all));
  EXPECT_THAT(outcome.err, testing::ContainsRegex("tokens, 0 of the prompt's [0-9]+ were there"));
  // Taken back, and asked otherwise.
  EXPECT_EQ(chat("A cat\n/undo\nThe old dog\n").out, plain("<user>A cat<answer>") + first);
  EXPECT_EQ(chat("A cat\n/edit The old dog\n/quit\nA cat\n").out,
            plain("<user>A cat<answer>") + first);
  EXPECT_EQ(chat("The old dog\n", {"--system", "Be"}).out,
            plain("<system>Be<user>The old dog<answer>"));
}

TEST_F(Chat, ASavedConversationGoesOnWhereItWas) {
  begin_answers_with("<assistant>");
  const std::string file = (folder_ / "saved").string();
  const std::string long_text = "The old dog saw a cat and the old dog saw a cat and a dog";
  const Outcome whole = chat(long_text + "\nA cat\n");
  const Outcome begun = chat(long_text + "\n/save " + file + "\n");
  EXPECT_THAT(begun.err, testing::HasSubstr("saved "));
  const Outcome rest = chat("A cat\n/stats\n", {"--load", file});
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_EQ(begun.out + rest.out, whole.out);
  EXPECT_EQ(begun.out + chat("/load " + file + "\nA cat\n").out, whole.out);
  EXPECT_THAT(rest.err, testing::HasSubstr("messages 4"));
  // All of the first part was there, in the same run and from the file.
  for (const Outcome& outcome : {whole, rest}) {
    EXPECT_THAT(outcome.err,
                testing::ContainsRegex(" [1-9][0-9]+ of the prompt's [0-9]+ were there"));
  }

  const Outcome wrong = chat("/load " + (folder_ / "none").string() + "\n/nothing\n/save\n/undo\n");
  EXPECT_EQ(wrong.code, 1);
  for (const char* part : {"none", "/nothing is unknown", "/save needs a file",
                           "no message to take back", "4 lines could not be done"}) {
    EXPECT_THAT(wrong.err, testing::HasSubstr(part));
  }
  const fs::path other = folder_ / "other";
  fs::copy(World::get().reference() / "model", other);
  fs::copy(model_ / "tokenizer_config.json", other, fs::copy_options::overwrite_existing);
  const Outcome foreign = run_halo(Process{.arguments = {"chat", other.string(), "--load", file}});
  EXPECT_EQ(foreign.code, 1);
  EXPECT_THAT(foreign.err, testing::HasSubstr("another model's weights"));
}

TEST_F(Generate, SeveralAnswersAndLogprobsOfOnePrompt) {
  const std::string out = output_of({"generate", model_.string(), "The old dog", "--max-tokens",
                                     "4", "--temperature", "1", "--n", "2", "--logprobs", "1"});
  EXPECT_TRUE(out.starts_with("--- 1 of 2\nThe old dog")) << out;
  EXPECT_THAT(out, testing::HasSubstr("\n--- 2 of 2\nThe old dog"));
  EXPECT_EQ(std::ranges::count(out, '|'), 8) << out;
}

}  // namespace
}  // namespace halo::system_test
