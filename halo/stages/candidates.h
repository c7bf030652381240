// Candidates for the layers that keep attention, scored as models on needles and on held-out text
// (hypenet.md 2.3). Scores stay item by item, so that they can be resampled.
#pragma once

#include <vector>

#include "halo/eval/needle.h"
#include "halo/stages/select.h"

namespace halo {

using Layers = std::vector<int64_t>;  // ascending

// How often each haystack and each row of text was drawn in a bootstrap.
struct Resample {
  std::vector<double> haystack, row;
};

struct CandidateScores {
  std::vector<NeedleItem> needles;
  TextScores text;

  // Means over all items, or over those that `draw` drew.
  double needle_logprob(const Resample* draw) const;
  double loss(const Resample* draw) const;         // nats a token
  double kl(const Resample* draw) const;           // from the teacher, nats a token
  SetFigures figures(const Resample* draw) const;  // the standard error is that of all items
};

// {"layers", "needle_accuracy", "needle_logprob", "needle_logprob_stderr", "kl", "kl_stderr",
//  "loss"}
json::object candidate_to_json(const Layers& layers, const CandidateScores& scores);

// The material every candidate is scored on, and the models that candidates are made of. Refers to
// what it is made from.
class Candidates {
 public:
  // `aligned`: every layer lightning; `attention`: every layer a NoPE attention mixer.
  Candidates(const SelectRecipe& recipe, const StageContext& context, const DecoderWeights& aligned,
             const DecoderWeights& attention);

  // All layers lightning but the kept ones.
  CandidateScores score_set(const Layers& kept) const;
  // The teacher with layer i alone swapped for its lightning mixer.
  CandidateScores score_swap(int64_t layer) const;
  // The teacher itself.
  CandidateScores score_teacher() const;

  const DecoderWeights& aligned() const { return aligned_; }
  const DecoderWeights& attention() const { return attention_; }

  // Haystacks and rows drawn with replacement, a function of the seed and `index`.
  Resample resample(uint64_t index) const;

 private:
  // Without the logit scale that the model may carry.
  CandidateScores score(const DecoderWeights& carried) const;

  const StageContext& context_;
  const DecoderWeights &aligned_, &attention_;
  TextBatches text_;
  std::vector<NeedleTask> tasks_;
  TeacherStates teacher_;
};

}  // namespace halo
