// Every constraint accepts an answer that a program wrote to its words, and refuses another.
#include "halo/eval/tasks/instructions.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "halo/eval/tasks/text.h"

namespace halo {
namespace {

// The numbers and quoted words of a sentence.
int64_t number_in(const std::string& text) {
  for (const std::string& word : words_of(text)) {
    if (word[0] >= '0' && word[0] <= '9' && word.back() != '.') return std::stoll(word);
  }
  return 1;  // "once"
}
std::string quoted_in(const std::string& text) {
  const size_t begin = text.find('"') + 1;
  return text.substr(begin, text.find('"', begin) - begin);
}
std::string times(int64_t n, const std::function<std::string(int64_t)>& make) {
  std::string text;
  for (int64_t i = 0; i < n; ++i) text += make(i);
  return text;
}

// A text that does what the constraint says, or one unit too much of it.
std::string answer(const Constraint& c, bool right) {
  const int64_t n = number_in(c.text) + (right ? 0 : 1);
  if (c.kind == "bullets") return times(n, [](auto) { return "- some thing\n"; });
  if (c.kind == "numbered") {
    return times(n, [](auto i) { return std::to_string(i + 1) + ". some thing\n"; });
  }
  if (c.kind == "paragraphs") return times(n, [](auto) { return "Some\nthing.\n\n"; });
  if (c.kind == "sentences") return times(n, [](auto) { return "Is it 3.5 \"so?\" "; });
  if (c.kind == "at_most") return times(n, [](auto) { return "so "; });
  if (c.kind == "at_least") return times(right ? n : n - 2, [](auto) { return "so "; });
  if (c.kind == "word") {
    return times(right ? n : n - 2, [&](auto) { return quoted_in(c.text) + ". "; }) + "mornings";
  }
  if (c.kind == "no_commas") return right ? "No; none." : "No, none.";
  if (c.kind == "without") return right ? "everything sandy" : "so " + quoted_in(c.text) + ".";
  if (c.kind == "question") return right ? "So?" : "So? Yes.";
  if (c.kind == "ending") return quoted_in(c.text) + (right ? "" : " No.");
  if (c.kind == "small") return right ? "so it is 3." : "so It is";
  if (c.kind == "capitals") return right ? "SO IT IS 3." : "So IT IS";
  ADD_FAILURE() << c.kind;
  return "";
}

TEST(Instructions, EveryConstraintIsCheckedAsItsWordsSay) {
  for (const auto& group : constraint_groups()) {
    for (const std::string& kind : group) {
      for (int64_t i = 0; i < 20; ++i) {
        made::Draws draws(Random(1, kind, i));
        const Constraint constraint = draw_constraint(kind, draws);
        SCOPED_TRACE(constraint.text);
        EXPECT_EQ(constraint.kind, kind);
        EXPECT_TRUE(constraint.holds(stripped(answer(constraint, true))));
        EXPECT_FALSE(constraint.holds(stripped(answer(constraint, false))));
      }
    }
  }
}

TEST(Instructions, ItemsHaveOneToThreeConstraintsOfDifferentGroups) {
  const auto items =
      instruction_items(300, 1, [](const std::string& text) { return "<user>" + text; });
  ASSERT_EQ(items.size(), 300u);
  std::set<std::string> prompts;
  std::map<std::string, int> kinds;
  for (size_t i = 0; i < items.size(); ++i) {
    EXPECT_TRUE(items[i].generated.at(0).prompt.starts_with("<user>"));
    prompts.insert(items[i].generated[0].prompt);
    const Outcome nothing = items[i].judge({{}, {" "}});
    EXPECT_EQ(nothing.figures.at(0).name, "followed");
    EXPECT_EQ(nothing.figures[0].value, 0) << "an empty answer follows nothing";
    EXPECT_EQ(nothing.figures.size(), 2 + 1 + i % 3);
    for (const auto& [kind, held] : nothing.sample.at("constraints").as_object()) ++kinds[kind];
  }
  EXPECT_GT(prompts.size(), 280u);
  EXPECT_EQ(kinds.size(), 13u);
}

TEST(Instructions, FiguresCountAllAndTheShare) {
  for (const TaskItem& item :
       instruction_items(30, 1, [](const std::string& text) { return text; })) {
    const Outcome outcome = item.judge({{}, {"SO, and very river?"}});
    double held = 0;
    for (const auto& [kind, value] : outcome.sample.at("constraints").as_object()) {
      held += value.as_bool() ? 1 : 0;
    }
    const auto all = static_cast<double>(outcome.figures.size() - 2);
    EXPECT_EQ(outcome.figures[0].value, held == all ? 1 : 0);
    EXPECT_EQ(outcome.figures[1].value, held / all);
  }
}

}  // namespace
}  // namespace halo
