// Which layers keep attention, from scores alone (hypenet.md 2.3). No models here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "halo/base/settings.h"

namespace halo {

enum class SelectionRule { kJoint, kRecallRatio, kKl, kRecall, kProbe, kGate, kEven, kRandom };
inline constexpr Word<SelectionRule> kSelectionRules[] = {
    {"joint", SelectionRule::kJoint}, {"recall-ratio", SelectionRule::kRecallRatio, "halo"},
    {"kl", SelectionRule::kKl},       {"recall", SelectionRule::kRecall},
    {"probe", SelectionRule::kProbe}, {"gate", SelectionRule::kGate},
    {"even", SelectionRule::kEven},   {"random", SelectionRule::kRandom}};

// floor(L / 4), at least 1.
int64_t default_keep(int64_t num_layers);

// HALO's score of each layer: min(50, (max R - R_i) / (max C - C_i + 1e-10)), R and C the recall
// and commonsense scores of the model with layer i alone swapped.
std::vector<double> halo_scores(const std::vector<double>& recall,
                                const std::vector<double>& commonsense);

// Indices of the k largest, ties to the lower index, ascending.
std::vector<int64_t> top_layers(const std::vector<double>& scores, int64_t k);
// The middles of k equal parts of the depth.
std::vector<int64_t> even_layers(int64_t num_layers, int64_t k);
std::vector<int64_t> random_layers(int64_t num_layers, int64_t k, uint64_t seed);
// All sets of k of n layers, in lexicographic order, and their number.
std::vector<std::vector<int64_t>> all_sets(int64_t n, int64_t k);
double count_sets(int64_t n, int64_t k);

// A set of kept layers as rule `joint` sees it.
struct SetFigures {
  double needle = 0;        // mean log-probability of an answer digit
  double needle_error = 0;  // its standard error
  double kl = 0;            // from the teacher, nats a token
};
// Where every answer is found the standard error vanishes: figures this close (nats a digit) count
// as the same.
inline constexpr double kSameNeedle = 0.01;
// Index of the chosen set: among those whose needle figure is within one standard error of the best
// set's, or within kSameNeedle, the one with the smallest KL.
size_t choose_set(const std::vector<SetFigures>& sets);

// A rule that chooses by a task which the teacher does not do chooses noise: what one guesses must
// be more than three standard errors below what the teacher has (NaN as error counts as 0).
bool above_chance(double score, double standard_error, double chance);

// What stage select is gated by: the loss of the chosen set as a share of that of no kept layers,
// of the needles' digits or of KL, the smaller share; but KL's where that is above kMostKlShare.
// NaN, which no gate lets through, where a loss is not finite.
double kept_loss_share(const SetFigures& chosen, const SetFigures& nothing_kept);
// A set that costs so much more KL is no start for stage 2, whatever it finds.
inline constexpr double kMostKlShare = 1.5;

// Searches sets of k of n layers: forward greedy (the layer whose addition choose_set prefers),
// then one pass of exchanges of each kept layer for each other one. `score` is asked once a set at
// most, of all that a step compares together.
using ScoreSets =
    std::function<std::vector<SetFigures>(const std::vector<std::vector<int64_t>>& sets)>;
std::vector<int64_t> search_sets(int64_t n, int64_t k, const ScoreSets& score);
// The most sets that it asks for.
int64_t most_searched_sets(int64_t n, int64_t k);

// A table of task scores, a row a layer in any order: the column `layer`, then tasks. A row
// `original` is ignored. Recall is the mean of the columns `recall`, commonsense of `commonsense`;
// both empty: the first and the second half.
struct SweepTable {
  std::vector<double> recall, commonsense;              // by layer
  std::vector<double> recall_error, commonsense_error;  // standard errors; empty: not known
};
// `items`: of how many items that are right or wrong each column is the mean, one number a column,
// recall's before commonsense's, or one for all; empty: not known.
SweepTable read_sweep(const std::filesystem::path& path, const std::vector<std::string>& recall,
                      const std::vector<std::string>& commonsense,
                      const std::vector<int64_t>& items = {});

// The share of `draws` in which each layer is among the k with the highest score, recall and
// commonsense being drawn from normal distributions by the table's standard errors. Layers are
// drawn one by one: where all were asked the same items, they vary together, and less.
std::vector<double> keep_probability(const SweepTable& table, int64_t k, int64_t draws);

}  // namespace halo
