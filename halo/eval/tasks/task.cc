#include "halo/eval/tasks/task.h"

namespace halo {

void pack(const Answers& answers, Packer& to) {
  to.add(std::ssize(answers.scores));
  for (const Score& score : answers.scores) {
    to.add(score.loglikelihood).add(int64_t{score.greedy});
  }
  to.add(std::ssize(answers.texts));
  for (const std::string& text : answers.texts) to.add(text);
}

Answers unpack_answers(Unpacker& from) {
  Answers answers;
  answers.scores.resize(from.integer());
  for (Score& score : answers.scores) {
    score.loglikelihood = from.number();
    score.greedy = from.integer() != 0;
  }
  answers.texts.resize(from.integer());
  for (std::string& text : answers.texts) text = from.text();
  return answers;
}

}  // namespace halo
