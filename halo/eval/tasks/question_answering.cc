#include "halo/eval/tasks/question_answering.h"

#include "halo/eval/tasks/text.h"

namespace halo {

namespace {

TaskItem written_item(const ItemLine& line, std::string prompt, const std::string& right_answer,
                      std::function<Outcome(std::string_view answer)> judge) {
  constexpr int64_t kMaxTokens = 48;
  TaskItem item{line.id()};
  item.solved.generated = prompt + " " + right_answer;
  item.generated = {{std::move(prompt), {"\n"}, kMaxTokens}};
  item.judge = [judge = std::move(judge)](const Answers& given) {
    return judge(stripped(given.texts.front()));
  };
  return item;
}

}  // namespace

TaskItem question_item(const ItemLine& line) {
  std::string prompt = line.text_or("context", "");
  if (!prompt.empty()) prompt += "\n";
  prompt += "Question: " + line.text("question") + "\nAnswer:";
  const std::vector<std::string> answers = line.texts("answers");
  return written_item(line, std::move(prompt), answers.front(), [answers](std::string_view text) {
    const AnswerScores scores = score_answer(text, answers);
    return Outcome{
        {{"contains", scores.contains}, {"f1", scores.f1}, {"exact_match", scores.exact_match}},
        {{"answer", text}, {"answers", json::value_from(answers)}}};
  });
}

TaskItem extraction_item(const ItemLine& line) {
  const std::string document = line.text("text"), value = line.text("value");
  const std::string answer(stripped(value));
  return written_item(line, std::string(stripped(document)), answer,
                      [answer](std::string_view text) {
                        return Outcome{{{"contains", score_answer(text, {answer}).contains}},
                                       {{"answer", text}, {"answers", json::array{answer}}}};
                      });
}

}  // namespace halo
