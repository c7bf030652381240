// Tasks whose items are lines of a file: what is asked, how it is judged, and a whole run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/eval/tasks/choice.h"
#include "halo/eval/tasks/lambada.h"
#include "halo/eval/tasks/question_answering.h"
#include "halo/eval/tasks/runner.h"
#include "halo/eval/tasks/tasks_testing.h"
#include "halo/eval/tasks/text_task.h"
#include "halo/eval/tasks/written_choice.h"
#include "halo/runtime/ranks.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

using testing::ElementsAre;
using testing::HasSubstr;

TaskItem item_of(TaskItem (*make)(const ItemLine&), const char* text) {
  const json::value value = parse_json(text, "items");
  return make(ItemLine(value.as_object(), "items: line 1", 0));
}

double figure(const Outcome& outcome, const std::string& name) {
  for (const Figure& f : outcome.figures) {
    if (f.name == name) return f.value;
  }
  ADD_FAILURE() << "no figure " << name;
  return -1;
}

TEST(Choice, ScoresEachChoiceBehindASpace) {
  const TaskItem item =
      item_of(choice_item,
              R"({"id": 7, "context": "Q:", "choices": ["no", "perh\u00e4ps so"], "label": 1})");
  EXPECT_EQ(item.id, "7");
  ASSERT_EQ(item.scored.size(), 2u);
  EXPECT_EQ(item.scored[1].prompt, "Q:");
  EXPECT_EQ(item.scored[1].continuation, " perh\u00e4ps so");
  // The longer choice is less likely as a whole and likelier by character: -5/10 against -2/2.
  const Outcome outcome = item.judge({{{-2, false}, {-5, false}}, {}});
  EXPECT_EQ(figure(outcome, "acc"), 0);
  EXPECT_EQ(figure(outcome, "acc_norm"), 1);
  EXPECT_EQ(outcome.sample.at("choice").to_number<int>(), 0);
  EXPECT_EQ(outcome.sample.at("label").to_number<int>(), 1);
  // Characters, not bytes: -5.5/10 is more than -1.1/2 would be at 11 bytes.
  EXPECT_EQ(figure(item.judge({{{-1.05, false}, {-5.4, false}}, {}}), "acc_norm"), 0);
  EXPECT_EQ(figure(item.judge({{{-1, false}, {-1, false}}, {}}), "acc"), 0)
      << "the first of equals";
}

TEST(Choice, RefusesLabelsThatAreNoChoice) {
  const std::string error = test::error_of([] {
    item_of(choice_item, R"({"id": "a", "context": "Q:", "choices": ["no"], "label": 1})");
  });
  EXPECT_THAT(error, HasSubstr("items: line 1: 'label' is 1, expected 0 to 0"));
}

TEST(Winogrande, ScoresWhatIsBehindTheBlank) {
  const TaskItem item = item_of(
      winogrande_item,
      R"({"id": "w", "context": "The cup and _ broke. ", "choices": ["it", "he"], "label": 0})");
  ASSERT_EQ(item.scored.size(), 2u);
  EXPECT_EQ(item.scored[0].prompt, "The cup and it");
  EXPECT_EQ(item.scored[1].prompt, "The cup and he");
  EXPECT_EQ(item.scored[1].continuation, " broke.");
  const Outcome outcome = item.judge({{{-1, false}, {-2, false}}, {}});
  EXPECT_EQ(figure(outcome, "acc"), 1);
  EXPECT_EQ(outcome.figures.size(), 1u);
}

TEST(Lambada, TheLastWordIsTheTarget) {
  const TaskItem item = item_of(lambada_item, R"({"id": "l", "text": "so it\n\nwas he said"})");
  ASSERT_EQ(item.scored.size(), 1u);
  EXPECT_EQ(item.scored[0].prompt, "so it\n\nwas he");
  EXPECT_EQ(item.scored[0].continuation, " said");
  const Outcome outcome = item.judge({{{-1.5, true}}, {}});
  EXPECT_EQ(figure(outcome, "acc"), 1);
  EXPECT_EQ(figure(outcome, "perplexity"), 1.5);
  EXPECT_EQ(outcome.sample.at("greedy"), true);
}

TEST(Questions, AreAskedOnALineOfTheirOwn) {
  const TaskItem item =
      item_of(question_item,
              R"({"id": "q", "context": "C.", "question": "Who?", "answers": ["Ann", "An"]})");
  ASSERT_EQ(item.generated.size(), 1u);
  EXPECT_EQ(item.generated[0].prompt, "C.\nQuestion: Who?\nAnswer:");
  EXPECT_EQ(item.generated[0].max_tokens, 48);
  EXPECT_THAT(item.generated[0].stops, ElementsAre("\n"));
  const Outcome outcome = item.judge({{}, {" Ann."}});
  EXPECT_EQ(figure(outcome, "exact_match"), 1);
  EXPECT_EQ(figure(outcome, "contains"), 1);
  EXPECT_EQ(outcome.sample.at("answer").as_string(), "Ann.");
  const TaskItem closed = item_of(
      question_item, R"({"id": "q", "context": "", "question": "Who?", "answers": ["Ann"]})");
  EXPECT_EQ(closed.generated[0].prompt, "Question: Who?\nAnswer:");
}

TEST(Extraction, ContinuesTheDocument) {
  const TaskItem item = item_of(
      extraction_item, R"({"doc_id": "d", "text": "Price: 3\nColour: ", "value": " Red "})");
  EXPECT_EQ(item.id, "d");
  EXPECT_EQ(item.generated.at(0).prompt, "Price: 3\nColour:");
  EXPECT_EQ(figure(item.judge({{}, {" it is red, or so"}}), "contains"), 1);
  EXPECT_EQ(figure(item.judge({{}, {" blue"}}), "contains"), 0);
}

TEST(WrittenChoice, ReadsLettersAndTexts) {
  const std::vector<std::string> choices = {"a dog", "a dog house", "Cat"};
  EXPECT_EQ(read_choice(" B", choices), 1);
  EXPECT_EQ(read_choice("(C) Cat", choices), 2);
  EXPECT_EQ(read_choice("A. a dog", choices), 0);
  EXPECT_EQ(read_choice("D", choices), -1);
  EXPECT_EQ(read_choice("Cat.", choices), 2) << "C begins a word, no letter";
  EXPECT_EQ(read_choice("The dog house is", choices), 1);
  EXPECT_EQ(read_choice("dog", choices), 0);
  EXPECT_EQ(read_choice("", choices), -1);
}

TEST(WrittenChoice, ReportsTheGapBetweenTheModes) {
  constexpr auto kLine =
      R"({"id": 7, "context": "Question: Q\nAnswer:", "choices": ["no", "yes"], "label": 1})";
  const json::value value = parse_json(kLine, "items");
  const ItemLine line(value.as_object(), "items: line 1", 0);
  const TaskItem item = written_choice_item(choice_item(line), line);
  ASSERT_EQ(item.scored.size(), 2u);
  ASSERT_EQ(item.generated.size(), 1u);
  EXPECT_EQ(item.generated[0].prompt, "Question: Q\nA. no\nB. yes\nAnswer:");
  const Outcome outcome = item.judge({{{-2, false}, {-1, false}}, {" A"}});
  EXPECT_EQ(figure(outcome, "acc"), 1);
  EXPECT_EQ(figure(outcome, "acc_written"), 0);
  EXPECT_EQ(figure(outcome, "gap"), 1);
  EXPECT_EQ(outcome.sample.at("choice_written").to_number<int>(), 0);
  EXPECT_EQ(outcome.sample.at("choice").to_number<int>(), 1);
}

class RunTasks : public test::LanguageModelFixture {
 protected:
  void SetUp() override {
    write_file(folder_ / "copa.jsonl",
               R"({"id": "0", "context": "one two", "choices": ["three", "four"], "label": 0}

{"id": "1", "context": "two one", "choices": ["three", "five six"], "label": 1}
{"id": "2", "context": "six", "choices": ["one", "five six"], "label": 1}
)");
    write_file(folder_ / "drop.jsonl",
               R"({"context": "one", "question": "two", "answers": ["three"]})");
  }

  test::Folder folder_;
};

TEST_F(RunTasks, FiguresAreOverTheItemsInOrder) {
  LanguageModel model = language_model();
  const TaskArgs args{{}, folder_.path(), {}, 2, 0};
  const Task copa_task = make_task("copa", args, model);
  ASSERT_EQ(copa_task.items.size(), 2u);
  std::vector<std::string> ids;
  double right = 0;
  const TaskResult copa =
      run_task(model, copa_task, nullptr, [&](const TaskItem& item, const Outcome& o) {
        ids.push_back(item.id);
        right += figure(o, "acc");
        const std::vector<Score> scores = model.score(item.scored);
        EXPECT_NEAR(o.sample.at("loglikelihoods").at(1).as_double(), scores[1].loglikelihood, 2e-6);
      });
  EXPECT_THAT(ids, ElementsAre("0", "1"));
  EXPECT_EQ(copa.figures[0].name, "acc");
  EXPECT_EQ(copa.figures[0].estimate.mean, right / 2);
  const Task drop_task = make_task("drop", args, model);
  const TaskResult drop =
      run_task(model, drop_task, nullptr, [](const TaskItem& item, const Outcome& o) {
        EXPECT_EQ(item.id, "0");
        EXPECT_TRUE(o.sample.contains("answer"));
      });
  EXPECT_EQ(drop.figures.size(), 3u);
  EXPECT_EQ(drop.figures[0].estimate.n, 1);
}

TEST_F(RunTasks, TheCacheAnswersWhatWasAskedBefore) {
  LanguageModel model = language_model();
  const TaskArgs args{{}, folder_.path(), {}, 0, 0};
  const Task task = make_task("copa_written", args, model);
  const fs::path file = folder_ / "cache" / "copa.jsonl";
  const auto run = [&](LanguageModel& with) {
    AnswerCache cache(file);
    std::string all;
    run_task(with, task, &cache, [&](const TaskItem& item, const Outcome& outcome) {
      all += item.id + json::serialize(outcome.sample) + "\n";
    });
    return all;
  };
  const std::string once = run(model);
  const std::string kept = read_file(file);
  EXPECT_EQ(std::ranges::count(kept, '\n'), 3);
  // Another model is not asked: what it would say is not there.
  LanguageModel other(test::random_model(config(), 2), Tokenizer(test::words_tokenizer(), "words"),
                      kSpecial, {Kernels::kReference, 4, 64}, 4);
  EXPECT_EQ(run(other), once);
  EXPECT_EQ(read_file(file), kept);
  // Killed while it wrote the last line: that item is asked again.
  write_file(file, kept.substr(0, kept.size() - 5));
  EXPECT_EQ(run(model), once);
  EXPECT_EQ(read_file(file), kept);
  write_file(file, kept.substr(0, 5));
  EXPECT_NE(run(other), once);
}

// Several pieces, some of whose items the cache knows; what each rank gets, and what is kept.
TEST_F(RunTasks, RanksDealTheItems) {
  // As many choices as make an item a piece of its own.
  json::array choices;
  for (const char* word : {"three", "five six", "nine", "four"}) choices.emplace_back(word);
  for (int i = 0; i < 16; ++i) choices.push_back(json::value(choices[i]));
  std::string lines;
  for (int i = 0; i < 5; ++i) {
    std::string context;
    for (int word = 0; word < 700; ++word) context += (word * i) % 7 < 3 ? " two" : " seven";
    lines +=
        json::serialize(json::object{
            {"id", std::to_string(i)}, {"context", context}, {"choices", choices}, {"label", 1}}) +
        "\n";
  }
  write_file(folder_ / "copa.jsonl", lines);
  const fs::path file = folder_ / "cache" / "copa.jsonl";
  // Of each rank; some answers are there before.
  const auto said_on = [&](int64_t n) {
    std::vector<std::string> said(n);
    std::vector<size_t> pieces(n);
    fs::remove(file);
    run_threads(n, 60, [&](Communicator& ranks) {
      at::NoGradGuard no_grad;
      LanguageModel model = language_model({Kernels::kFast, 4, 4096});
      const Task task = make_task("copa", {{}, folder_.path(), {}, 0, 0}, model);
      std::optional<AnswerCache> cache;
      if (ranks.is_first()) {
        cache.emplace(file);
        cache->add(task.items[2], {std::vector<Score>(20, {-1, true}), {}});
      }
      const TaskResult result = run_task(
          model, task, cache ? &*cache : nullptr,
          [&](const TaskItem& item, const Outcome& outcome) {
            said[ranks.rank()] += item.id + json::serialize(outcome.sample) + "\n";
          },
          [&](size_t) { ++pieces[ranks.rank()]; }, ranks);
      said[ranks.rank()] += fmt::format("{}", result.figures[0].estimate.mean);
    });
    for (const size_t count : pieces) EXPECT_GT(count, 0u);
    for (const std::string& rank : said) EXPECT_EQ(rank, said.front());
    const std::string kept = read_file(file);
    EXPECT_EQ(std::ranges::count(kept, '\n'), 5) << "each item once";
    return said.front();
  };
  const std::string one = said_on(1);
  EXPECT_THAT(one, HasSubstr("[-1E0,-1E0,"));
  for (const int64_t n : {2, 3}) EXPECT_EQ(said_on(n), one) << n << " ranks";
}

TEST_F(RunTasks, RanksDealTheRowsOfText) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += i % 7 == 0 ? " one two" : i % 3 == 0 ? " six" : " ten";
  write_file(folder_ / "wikitext2-test.txt", text);
  const auto other = test::random_model(config(), 2);
  const auto figures_on = [&](int64_t n) {
    std::vector<std::string> said(n);
    run_threads(n, 60, [&](Communicator& ranks) {
      at::NoGradGuard no_grad;
      const LanguageModel model = language_model();
      TextTask task("wikitext2-test", folder_.path(), 64, 0);
      for (const auto& weights : {weights_, other}) {
        const auto on_row = [](const std::string&, const Outcome&) {};
        const TaskResult result = task.run(*weights, model, Kernels::kReference, on_row, ranks);
        for (const FigureResult& figure : result.figures) {
          said[ranks.rank()] += fmt::format("{} {}\n", figure.name, figure.estimate.mean);
        }
      }
    });
    for (const std::string& rank : said) EXPECT_EQ(rank, said.front());
    return said.front();
  };
  const std::string one = figures_on(1);
  EXPECT_THAT(one, HasSubstr("top1"));
  for (const int64_t n : {2, 3}) EXPECT_EQ(figures_on(n), one) << n << " ranks";
}

TEST_F(RunTasks, ShotsStandInFrontSolvedAndAreNotAsked) {
  const LanguageModel model = language_model();
  TaskArgs args{{}, folder_.path(), {}, 0, 1};
  const Task own = make_task("copa", args, model);
  ASSERT_EQ(own.items.size(), 2u);
  EXPECT_EQ(own.items[0].id, "1");
  EXPECT_EQ(own.items[0].scored.at(1).prompt, "one two three\n\ntwo one");
  EXPECT_EQ(own.items[0].scored[1].continuation, " five six");
  args.limit = 1;
  EXPECT_EQ(make_task("copa", args, model).items.size(), 1u) << "the limit counts those asked";
  args.limit = 0;
  const Task written = make_task("copa_written", args, model);
  EXPECT_EQ(written.items[0].generated.at(0).prompt,
            "one two\nA. three\nB. four\nAnswer: A\n\ntwo one\nA. three\nB. five six\nAnswer:");
  EXPECT_EQ(written.items[0].scored.at(0).prompt, "one two three\n\ntwo one");
  EXPECT_THAT(test::error_of([&] { make_task("drop", args, model); }),
              HasSubstr("drop: no item is left to ask beside --shots 1"));
  EXPECT_THAT(test::error_of([&] { make_task("addition", args, model); }),
              HasSubstr("its items are made"));

  // A file of shots leaves all items to be asked.
  write_file(folder_ / "drop.shots.jsonl",
             R"({"context": "six", "question": "who", "answers": ["ten", "nine"]})");
  const Task drop = make_task("drop", args, model);
  EXPECT_EQ(drop.items.at(0).generated.at(0).prompt,
            "six\nQuestion: who\nAnswer: ten\n\none\nQuestion: two\nAnswer:");
  args.shots = 2;
  EXPECT_THAT(test::error_of([&] { make_task("drop", args, model); }),
              HasSubstr("drop.shots has 1 items, --shots asks for 2"));
}

TEST_F(RunTasks, TextIsScoredInRowsAndComparedWithTheFirstModel) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += i % 3 == 0 ? " one two" : " six";
  write_file(folder_ / "wikitext2-test.txt", text);
  LanguageModel model = language_model();
  TextTask task("wikitext2-test", folder_.path(), 16, 3);
  std::vector<std::string> ids;
  const auto on_row = [&](const std::string& id, const Outcome&) { ids.push_back(id); };
  const TaskResult first = task.run(*weights_, model, Kernels::kReference, on_row);
  EXPECT_THAT(ids, ElementsAre("0", "1", "2"));
  const auto find = [](const TaskResult& result, const std::string& name) {
    const auto at = std::ranges::find(result.figures, name, &FigureResult::name);
    return at == result.figures.end() ? nullptr : &*at;
  };
  ASSERT_TRUE(find(first, "loss"));
  EXPECT_FALSE(find(first, "kl"));
  std::vector<int64_t> row = model.tokenizer().encode(text);
  row.resize(16);
  const at::Tensor hidden = test::plain_decode(*weights_, row, Kernels::kReference);
  const at::Tensor logprob = logits(*weights_, hidden, Kernels::kReference).log_softmax(1);
  double loss = 0;
  for (int64_t i = 0; i < 15; ++i) loss -= logprob[i][row[i + 1]].item<double>() / 15;
  EXPECT_NEAR(find(first, "loss")->parts[0], loss, 1e-5);
  EXPECT_NEAR(find(first, "perplexity")->estimate.mean,
              std::exp(find(first, "loss")->estimate.mean), 1e-9);
  EXPECT_TRUE(find(first, "loss@8-16"));

  const TaskResult same = task.run(*weights_, model, Kernels::kReference, on_row);
  EXPECT_NEAR(find(same, "kl")->estimate.mean, 0, 1e-6);
  EXPECT_EQ(find(same, "top1")->estimate.mean, 1);
  const auto weights = test::random_model(config(), 2);
  const TaskResult other = task.run(*weights, model, Kernels::kReference, on_row);
  EXPECT_GT(find(other, "kl")->estimate.mean, 0);
  EXPECT_LT(find(other, "top1")->estimate.mean, 1);

  EXPECT_THAT(test::error_of([&] {
                TextTask("wikitext2-test", folder_.path(), 4096, 0)
                    .run(*weights_, model, Kernels::kReference, on_row);
              }),
              HasSubstr("do not fill a row of 4096"));
  EXPECT_THAT(test::error_of([&] { TextTask("wikitext2-valid", folder_.path(), 16, 0); }),
              HasSubstr("no wikitext2-valid.txt, .txt.zst or .txt.gz there"));
}

TEST_F(RunTasks, SaysWhichTaskOrFileIsMissing) {
  const LanguageModel model = language_model();
  const auto error = [&](const std::string& task) {
    return test::error_of([&] { make_task(task, {{}, folder_.path(), {}, 0, 0}, model); });
  };
  EXPECT_THAT(error("boolq"), HasSubstr("no boolq.jsonl, .jsonl.zst or .jsonl.gz there"));
  write_file(folder_ / "boolq.jsonl", "\n");
  EXPECT_THAT(error("boolq"), HasSubstr("there is no item in it"));
}

TEST(TaskNames, GroupsBecomeTheirTasks) {
  EXPECT_THAT(expand_tasks({"copa", "closed_book", "copa", "triviaqa"}),
              ElementsAre("copa", "nq_open", "triviaqa"));
  EXPECT_EQ(test::error_of([] { expand_tasks({"copas"}); }),
            "there is no task 'copas'; did you mean 'copa'?");
}

}  // namespace
}  // namespace halo
