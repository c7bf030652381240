// Candidates for the layers that keep attention, scored as models on needles and on held-out text
// (hypenet.md 2.3). Scores stay item by item, so that they can be resampled.
#pragma once

#include <functional>
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

  // What follows is called by all ranks, which deal the candidates among themselves.

  // All layers lightning but the kept ones, of each. `on_set` sees those that this rank has done.
  std::vector<CandidateScores> score_sets(const std::vector<Layers>& kept,
                                          const std::function<void(size_t set)>& on_set = {}) const;
  // The teacher with one layer alone swapped for its lightning mixer, of each layer.
  std::vector<CandidateScores> score_swaps(const std::function<void(size_t layer)>& on_layer) const;
  // The teacher itself.
  CandidateScores score_teacher() const;

  const DecoderWeights& aligned() const { return aligned_; }
  const DecoderWeights& attention() const { return attention_; }

  // Haystacks and rows drawn with replacement, a function of the seed and `index`.
  Resample resample(uint64_t index) const;

 private:
  // Without the logit scale that the model may carry.
  CandidateScores score(const DecoderWeights& carried) const;
  std::vector<CandidateScores> score_all(
      size_t candidates, const std::function<DecoderWeights(size_t candidate)>& model_of,
      const std::function<void(size_t candidate)>& on_candidate) const;

  const StageContext& context_;
  const DecoderWeights &aligned_, &attention_;
  TextBatches text_;
  std::vector<NeedleTask> tasks_;
  TeacherStates teacher_;
};

}  // namespace halo
