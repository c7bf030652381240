// Which logit scale a student gets, from figures alone (hypenet.md 2.4). No models here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace halo {

// A candidate a of ln(t + a) / ln(a) as the rule sees it.
struct ScaleFigures {
  double a = 0;
  double accuracy = 0;        // of needles beyond the training length
  double accuracy_error = 0;  // its standard error; NaN counts as 0
  double loss = 0;            // nats a token at positions past the training length
};

// The needle lengths that the search uses: `given`, whose longest must be beyond the training
// length (an Error that names scale.lengths else), or 4 and 8 times that where none are.
std::vector<int64_t> lengths_beyond(const std::vector<int64_t>& given, int64_t training_length);

// Index of the chosen candidate: among those whose accuracy is within one standard error (of the
// best one's) of the best, the lowest loss; of equal ones the largest a, nearest to no scaling.
size_t choose_scale(const std::vector<ScaleFigures>& candidates);

}  // namespace halo
