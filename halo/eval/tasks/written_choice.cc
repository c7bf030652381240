#include "halo/eval/tasks/written_choice.h"

#include "halo/base/check.h"
#include "halo/base/utf8.h"
#include "halo/eval/tasks/text.h"
#include "halo/tokenizer/unicode.h"

namespace halo {
namespace {

char letter(size_t choice) {
  return static_cast<char>('A' + choice);
}

// The context without what asks for an answer at its end: that comes behind the choices.
std::string_view without_prompt(std::string_view context) {
  for (const std::string_view prompt : {"\nAnswer:", "\nA:"}) {
    if (context.ends_with(prompt)) context.remove_suffix(prompt.size());
  }
  return context;
}

}  // namespace

int64_t read_choice(std::string_view answer, const std::vector<std::string>& choices) {
  answer = stripped(answer);
  std::string_view bare = answer;
  if (bare.starts_with('(')) bare.remove_prefix(1);
  const int64_t named = bare.empty() ? -1 : bare[0] - 'A';
  if (named >= 0 && named < static_cast<int64_t>(choices.size()) &&
      (bare.size() == 1 || !is_word(code_at(bare, 1).code))) {
    return named;
  }
  const std::string text = normalised_answer(answer);
  int64_t longest = -1;
  size_t size = 0;
  for (size_t i = 0; i < choices.size(); ++i) {
    const std::string choice = normalised_answer(choices[i]);
    if (choice.size() > size && text.starts_with(choice)) {
      longest = static_cast<int64_t>(i);
      size = choice.size();
    }
  }
  return longest;
}

TaskItem written_choice_item(TaskItem by_score, const ItemLine& line) {
  constexpr int64_t kMaxTokens = 32;
  const std::vector<std::string> choices = line.texts("choices");
  if (choices.size() > 26) throw_error("{}: more than 26 choices", line.place());
  const int64_t label = line.integer("label", static_cast<int64_t>(choices.size()));
  const std::string context = line.text("context");
  std::string prompt(without_prompt(context));
  for (size_t i = 0; i < choices.size(); ++i) {
    prompt += fmt::format("\n{}. {}", letter(i), choices[i]);
  }
  prompt += "\nAnswer:";
  by_score.solved.generated = fmt::format("{} {}", prompt, letter(label));
  by_score.generated = {{prompt, {"\n"}, kMaxTokens}};
  by_score.judge = [choices, label, judge = std::move(by_score.judge)](const Answers& answers) {
    Outcome outcome = judge(answers);
    const double acc = outcome.figures.front().value;
    const int64_t written = read_choice(answers.texts.front(), choices);
    const double acc_written = written == label ? 1 : 0;
    outcome.figures = {{"acc", acc}, {"acc_written", acc_written}, {"gap", acc - acc_written}};
    outcome.sample["answer"] = stripped(answers.texts.front());
    outcome.sample["choice_written"] = written;
    return outcome;
  };
  return by_score;
}

}  // namespace halo
