// Means with standard errors that respect clusters: tokens of one document, or questions on one
// haystack, are not independent draws.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "halo/base/json.h"

namespace halo {

struct Estimate {
  double mean = 0;            // NaN where nothing was counted
  double standard_error = 0;  // NaN from fewer than two clusters
  int64_t n = 0;              // what was counted: tokens, questions
  int64_t clusters = 0;
};

// m = sum of sums / sum of counts over the items of all clusters, and its linearised standard error
//   sqrt(G / (G - 1) * sum over clusters g of (S_g - m C_g)^2) / sum of counts
// with S_g, C_g a cluster's sums and counts and G the clusters that count anything.
Estimate clustered_ratio(std::span<const double> sums, std::span<const double> counts,
                         std::span<const int64_t> clusters);
// The same with a count of 1 an item.
Estimate clustered_mean(std::span<const double> values, std::span<const int64_t> clusters);

// {NAME: mean, "stderr", "n", "clusters"}; NaN becomes null.
json::object estimate_to_json(std::string_view name, const Estimate& estimate);
json::value number_or_null(double value);

}  // namespace halo
