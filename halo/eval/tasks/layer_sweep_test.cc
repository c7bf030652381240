// A sweep over layers gives what each swapped model says by itself, for half of the work.
#include "halo/eval/tasks/layer_sweep.h"

#include <gtest/gtest.h>

#include "halo/eval/tasks/choice.h"
#include "halo/eval/tasks/question_answering.h"
#include "halo/eval/tasks/runner.h"
#include "halo/eval/tasks/tasks_testing.h"
#include "halo/runtime/ranks.h"

namespace halo {
namespace {

// A Transformer, and lightning mixers for its layers.
class LayerSweepTest : public test::LanguageModelFixture {
 protected:
  static ModelConfig teacher_config(int64_t layers) {
    ModelConfig config = test::transformer_config();
    config.vocab_size = LanguageModelFixture::config().vocab_size;
    config.num_layers = layers;
    config.mixer_types.assign(static_cast<size_t>(layers), MixerType::kAttention);
    return config;
  }
  static std::vector<Mixer> mixers_of(int64_t layers) {
    ModelConfig config = LanguageModelFixture::config();
    config.num_layers = layers;
    config.mixer_types.assign(static_cast<size_t>(layers), MixerType::kLightning);
    const auto model = test::random_model(config, 2);
    std::vector<Mixer> mixers;
    for (const LayerWeights& layer : model->layers) mixers.push_back(layer.mixer);
    return mixers;
  }
  LanguageModel teacher(int64_t layers, Kernels kernels = Kernels::kReference) {
    weights_ = test::random_model(teacher_config(layers));
    return language_model({kernels, 4, 64});
  }

  // Choices and questions in turn, behind so many words.
  static Task task(const std::vector<std::string>& contexts) {
    Task task{"mixed", {}};
    const auto add = [&](TaskItem (*make)(const ItemLine&), const std::string& text) {
      const json::value value = parse_json(text, "items");
      task.items.push_back(make(ItemLine(value.as_object(), "items", std::ssize(task.items))));
    };
    for (const std::string& context : contexts) {
      add(choice_item, fmt::format(R"({{"context": "one two {} six seven three", "label": 0,
                                        "choices": ["three", "four five", "six"]}})",
                                   context));
      add(question_item, fmt::format(R"({{"context": "five {} one", "question": "two",
                                          "answers": ["three"]}})",
                                     context));
    }
    return task;
  }
};

TEST_F(LayerSweepTest, OutcomesAreThoseOfEachModelAlone) {
  const LanguageModel like = teacher(3);
  const std::vector<Mixer> mixers = mixers_of(3);
  const Task asked = task({"one", "two six", "ten four four nine two"});
  // All items at once, and a few at a time.
  for (const int64_t max_bytes : {int64_t{1} << 30, int64_t{100'000}}) {
    LayerSweep sweep(like, weights_, mixers, max_bytes);
    std::vector<size_t> done;
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
  }
}

TEST_F(LayerSweepTest, RanksDealTheItems) {
  const LanguageModel like = teacher(3);
  const std::vector<Mixer> mixers = mixers_of(3);
  const Task asked = task({"one", "two six", "ten four four nine two", "five", "three one"});
  const auto said_on = [&](int64_t n) {
    std::vector<std::string> said(n);
    run_threads(n, 60, [&](Communicator& ranks) {
      at::NoGradGuard no_grad;
      LayerSweep sweep(like, weights_, mixers, 100'000);
      size_t pieces = 0;
      const auto outcomes = sweep.run(
          asked, [&](size_t) { ++pieces; }, ranks);
      EXPECT_GT(pieces, 0u);
      std::string& own = said[ranks.rank()];
      for (const auto& of_model : outcomes) {
        for (const Outcome& outcome : of_model) own += json::serialize(outcome.sample) + "\n";
      }
      own += fmt::format("{} {}", sweep.cost().flops(), sweep.cost().whole_flops());
    });
    for (const std::string& rank : said) EXPECT_EQ(rank, said.front());
    return said.front();
  };
  const std::string one = said_on(1);
  for (const int64_t n : {2, 3}) EXPECT_EQ(said_on(n), one) << n << " ranks";
}

// As long as prompts of a sweep over real questions are, beside what is written. By the fast
// kernels: it is calls that are counted.
TEST_F(LayerSweepTest, OfThirtyLayersCostsHalfOfThirtyEvaluations) {
  constexpr int64_t kLayers = 30;
  const LanguageModel like = teacher(kLayers, Kernels::kFast);
  std::vector<std::string> contexts;
  for (uint64_t i = 0; i < 2; ++i) {
    std::string words;
    for (const int64_t word : test::random_tokens(500, i, 3)) {
      words += word == 0 ? " one" : word == 1 ? " four" : " nine";
    }
    contexts.push_back(words);
  }
  LayerSweep sweep(like, weights_, mixers_of(kLayers));
  sweep.run(task(contexts));
  const SweepCost& cost = sweep.cost();
  EXPECT_LE(cost.layer_flops, 0.55 * cost.whole_layer_flops);
  EXPECT_GE(cost.layer_flops, 0.4 * cost.whole_layer_flops);
  EXPECT_GT(cost.head_flops, cost.whole_head_flops);  // the teacher's own
}

}  // namespace
}  // namespace halo
