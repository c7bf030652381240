// Texts as answers are compared.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace halo {

int64_t num_characters(std::string_view text);  // code points
// Without white space at both ends.
std::string_view stripped(std::string_view text);
std::string lower(std::string_view text);
std::vector<std::string> words_of(std::string_view text);  // what stands between white space

// As the evaluation script of SQuAD v1.1 normalises answers: lower case, without ASCII punctuation
// and the words a, an, the, single spaces.
std::string normalised_answer(std::string_view text);

// Best over the right answers, 0 or 1 but for f1.
struct AnswerScores {
  double contains = 0;     // the text has a right answer in it, whatever the case
  double f1 = 0;           // of the words of the normalised texts
  double exact_match = 0;  // of the normalised texts
};
AnswerScores score_answer(std::string_view text, const std::vector<std::string>& answers);

}  // namespace halo
