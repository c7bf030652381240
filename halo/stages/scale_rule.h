// Which logit scale a student gets, from figures alone (hypenet.md 2.4). No models here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace halo {

// A candidate as the rule sees it.
struct ScaleFigures {
  double a = 0;               // of ln(t + a) / ln(a); infinity: no scale; 0: a constant one
  double accuracy = 0;        // of needles beyond the training length
  double accuracy_error = 0;  // its standard error; NaN counts as 0
  double loss = 0;            // nats a token at positions past the training length
};

// The needle lengths that the search measures: `given`, whose longest must be beyond the training
// length (an Error that names scale.lengths else), or 4 and 8 times that where none are. Those
// within the training length are shown beside and take no part in the choice.
std::vector<int64_t> lengths_beyond(const std::vector<int64_t>& given, int64_t training_length);

// The integers next to the geometric means of `best`, one of `tried`, and its neighbours among
// them: what a refined search tries next. None where a neighbour is less than a tenth away.
std::vector<double> refined(std::vector<double> tried, double best);

// Index of the chosen candidate: among those whose accuracy is within one standard error (of the
// best one's) of the best, the lowest loss; of equal ones the largest a, nearest to no scaling.
// kScaleRule says so to a reader.
inline constexpr const char* kScaleRule =
    "largest needle accuracy over the lengths beyond the training length; among candidates within "
    "one standard error of it, no scale and a constant one included, the lowest loss past the "
    "training length; then the largest a, no scale being the largest";
size_t choose_scale(const std::vector<ScaleFigures>& candidates);

}  // namespace halo
