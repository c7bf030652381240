#include "halo/eval/statistics.h"

#include <cmath>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "halo/base/check.h"

namespace halo {

Estimate clustered_ratio(std::span<const double> sums, std::span<const double> counts,
                         std::span<const int64_t> clusters) {
  HALO_CHECK(sums.size() == counts.size() && sums.size() == clusters.size(),
             "clustered_ratio: {} sums, {} counts, {} clusters", sums.size(), counts.size(),
             clusters.size());
  std::map<int64_t, std::pair<double, double>> totals;  // cluster -> sum, count
  double sum = 0, count = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    if (counts[i] == 0) continue;
    auto& [cluster_sum, cluster_count] = totals[clusters[i]];
    cluster_sum += sums[i];
    cluster_count += counts[i];
    sum += sums[i];
    count += counts[i];
  }
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double groups = static_cast<double>(totals.size());
  Estimate estimate{nan, nan, std::llround(count), static_cast<int64_t>(totals.size())};
  if (count == 0) return estimate;
  estimate.mean = sum / count;
  if (totals.size() < 2) return estimate;
  double squares = 0;
  for (const auto& [cluster, total] : totals) {
    const double rest = total.first - estimate.mean * total.second;
    squares += rest * rest;
  }
  estimate.standard_error = std::sqrt(groups / (groups - 1) * squares) / count;
  return estimate;
}

Estimate clustered_mean(std::span<const double> values, std::span<const int64_t> clusters) {
  return clustered_ratio(values, std::vector<double>(values.size(), 1.0), clusters);
}

json::value number_or_null(double value) {
  return std::isfinite(value) ? json::value(value) : json::value(nullptr);
}

json::object estimate_to_json(std::string_view name, const Estimate& estimate) {
  return {{name, number_or_null(estimate.mean)},
          {"stderr", number_or_null(estimate.standard_error)},
          {"n", estimate.n},
          {"clusters", estimate.clusters}};
}

}  // namespace halo
