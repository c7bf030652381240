// A sweep over layers gives what each swapped model says by itself, for half of the work.
#include "halo/eval/tasks/layer_sweep.h"

#include <gtest/gtest.h>

#include "halo/eval/tasks/choice.h"
#include "halo/eval/tasks/question_answering.h"
#include "halo/eval/tasks/runner.h"
#include "halo/eval/tasks/tasks_testing.h"

namespace halo {
namespace {

class LayerSweepTest : public test::LanguageModelFixture {
 protected:
  static Task task() {
    Task task{"mixed", {}};
    const auto add = [&](TaskItem (*make)(const ItemLine&), const std::string& text) {
      const json::value value = parse_json(text, "items");
      task.items.push_back(make(ItemLine(value.as_object(), "items", std::ssize(task.items))));
    };
    for (const char* word : {"one", "two six", "ten four four nine two"}) {
      add(choice_item, fmt::format(R"({{"context": "one two {} six seven three", "label": 0,
                                        "choices": ["three", "four five", "six"]}})",
                                   word));
      add(question_item, fmt::format(R"({{"context": "five {} one", "question": "two",
                                          "answers": ["three"]}})",
                                     word));
    }
    return task;
  }
};

TEST_F(LayerSweepTest, OutcomesAreThoseOfEachModelAlone) {
  const auto others = test::random_model(config(), 2);
  std::vector<Mixer> mixers;
  for (const LayerWeights& layer : others->layers) mixers.push_back(layer.mixer);
  const LanguageModel like = language_model();
  // All items at once, and a few at a time.
  for (const int64_t max_bytes : {int64_t{1} << 30, int64_t{30'000}}) {
    LayerSweep sweep(like, weights_, mixers, max_bytes);
    std::vector<size_t> done;
    const Task asked = task();
    const auto outcomes = sweep.run(asked, [&](size_t n) { done.push_back(n); });
    ASSERT_EQ(outcomes.size(), mixers.size() + 1);
    EXPECT_EQ(done.back(), asked.items.size());
    EXPECT_EQ(done.size() > 1, max_bytes < int64_t{1} << 30);
    for (size_t m = 0; m < outcomes.size(); ++m) {
      auto weights = std::make_shared<DecoderWeights>(*weights_);
      if (m < mixers.size()) weights->layers[m].mixer = mixers[m];
      LanguageModel alone(like, weights, like.options());
      size_t i = 0;
      run_task(alone, asked, nullptr, [&](const TaskItem&, const Outcome& expected) {
        const Outcome& found = outcomes[m][i++];
        ASSERT_EQ(found.figures.size(), expected.figures.size());
        if (!expected.sample.contains("loglikelihoods")) {
          EXPECT_EQ(found.sample, expected.sample) << m;
          return;
        }
        for (size_t c = 0; c < 3; ++c) {
          EXPECT_NEAR(found.sample.at("loglikelihoods").at(c).as_double(),
                      expected.sample.at("loglikelihoods").at(c).as_double(), 1e-4)
              << m;
        }
      });
    }
    EXPECT_GT(sweep.cost().flops, 0);
    // Three layers: 1 + (3 + 2 + 1) / 3 of three evaluations, were it not for what is not shared.
    EXPECT_LT(sweep.cost().flops, 1.1 * sweep.cost().whole_flops);
  }
}

}  // namespace
}  // namespace halo
