// Needles in a haystack: exact match and log-probability of 7-digit answers by length and depth.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "halo/data/needle.h"
#include "halo/engine/engine.h"
#include "halo/eval/held_out.h"
#include "halo/eval/statistics.h"
#include "halo/runtime/deal.h"

namespace halo {

struct NeedleArgs {
  std::vector<int64_t> lengths;                            // tokens of prompt and answer
  int64_t haystacks = 40;                                  // of each length
  std::vector<double> depths = {0.1, 0.3, 0.5, 0.7, 0.9};  // one question each on every haystack
  NeedlePool pool = NeedlePool::kReport;
  uint64_t seed = 0;
};

struct NeedleTask {
  int64_t length = 0;
  NeedleHaystack haystack;
};

// An Error that names `lengths` as `what` if one of them has no room for a needle and its question.
void check_shortest_needles(const std::string& what, const NeedleWriter& writer,
                            const std::vector<int64_t>& lengths);
// The same, and an Error where the part of `text` that is `pool`'s has no room for
// a haystack of each length.
void check_needle_lengths(const std::string& what, const NeedleWriter& writer,
                          const TokenShard& text, const std::vector<int64_t>& lengths,
                          NeedlePool pool);

// Haystacks are windows of `text` at random places of its part, which goes on from its end at its
// start: kSearch's for pool kSearch, kReport's for kReport, either for kTraining. As in training
// they hold no begin and no end tokens.
std::vector<NeedleTask> make_needles(const NeedleWriter& writer, const TokenShard& text,
                                     const NeedleArgs& args);

struct NeedleItem {
  int64_t length = 0;
  double depth = 0;
  int64_t haystack = 0;  // index of the task: the cluster
  bool correct = false;  // greedy decoding gives all 7 digits
  double logprob = 0;    // ln p of the answer over its 7 digits, each token after the true ones
};

// One item a question, tasks in order. What questions share of a haystack is
// fed once and forked; one pass over the rest and the answer then says whether greedy decoding
// would give the answer: it would exactly if every digit is the best token after the true ones
// before it. `on_haystack` sees how many are done. Ranks deal the haystacks among themselves, as
// many at once as one decoder call takes: the same bits whatever their number.
std::vector<NeedleItem> score_needles(Engine& engine, const std::vector<NeedleTask>& tasks,
                                      const std::function<void(size_t done)>& on_haystack = {},
                                      Communicator& ranks = one_rank());

// Items as ranks tell them each other.
void pack(const std::vector<NeedleItem>& items, Packer& to);
std::vector<NeedleItem> unpack_needles(Unpacker& from);

Estimate needle_accuracy(const std::vector<NeedleItem>& items);
Estimate needle_logprob(const std::vector<NeedleItem>& items);
std::vector<NeedleItem> items_of_length(const std::vector<NeedleItem>& items, int64_t length);

// {LENGTH: {"accuracy", "stderr", "n", "clusters", "logprob", "logprob_stderr",
//           "by_depth": [{"depth", "accuracy", "stderr", "n", "clusters"}]}}
json::object needles_to_json(const std::vector<NeedleItem>& items);

}  // namespace halo
