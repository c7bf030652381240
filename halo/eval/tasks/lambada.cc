#include "halo/eval/tasks/lambada.h"

#include "halo/base/check.h"

namespace halo {

TaskItem lambada_item(const ItemLine& line) {
  TaskItem item{line.id()};
  const std::string text = line.text("text");
  const size_t space = text.rfind(' ');
  if (space == std::string::npos) throw_error("{}: 'text' has no space", line.place());
  item.scored = {{text.substr(0, space), text.substr(space)}};
  item.solved.scored = text;
  item.judge = [](const Answers& answers) {
    const Score& score = answers.scores.front();
    return Outcome{{{"acc", score.greedy ? 1.0 : 0.0},
                    {"perplexity", -score.loglikelihood, Figure::Mean::kExp}},
                   {{"loglikelihood", score.loglikelihood}, {"greedy", score.greedy}}};
  };
  return item;
}

}  // namespace halo
