// Which logit scale a student gets, from figures alone (hypenet.md 2.4). No models here.
#pragma once

#include <cstddef>
#include <vector>

namespace halo {

// A candidate a of ln(t + a) / ln(a) as the rule sees it.
struct ScaleFigures {
  double a = 0;
  double accuracy = 0;        // of needles beyond the training length
  double accuracy_error = 0;  // its standard error; NaN counts as 0
  double loss = 0;            // nats a token at positions past the training length
};

// Index of the chosen candidate: among those whose accuracy is within one standard error (of the
// best one's) of the best, the lowest loss; of equal ones the largest a, nearest to no scaling.
size_t choose_scale(const std::vector<ScaleFigures>& candidates);

}  // namespace halo
