#include "halo/pipeline/links.h"

#include <algorithm>
#include <cmath>

namespace halo {

double gather_seconds(const Links& links, int64_t ranks, double bytes) {
  if (ranks <= 1) return 0;
  const double n = static_cast<double>(ranks);
  const double rate = 1e9 * (ranks <= links.node ? links.in_node : links.network);
  const double ring = (n - 1) * links.latency + bytes * (n - 1) / n / rate;
  const double tree = std::log2(n) * links.latency + bytes / rate;
  return std::min(ring, tree);
}

double exchange_seconds(const Links& links, int64_t group, double bytes) {
  if (group == 1 || links.in_node == 0) return 0;  // between threads nothing is sent
  const double n = static_cast<double>(group);
  return bytes * (n - 1) / n / (1e9 * (group <= links.node ? links.in_node : links.network));
}

double step_seconds(const Links& links, int64_t ranks, Shard shard, int64_t trained_parameters,
                    int64_t compute_bytes) {
  const double gradients = 4.0 * static_cast<double>(trained_parameters);
  const double given_out =
      shard == Shard::kNone ? gradients : static_cast<double>(compute_bytes * trained_parameters);
  return gather_seconds(links, ranks, gradients) + gather_seconds(links, ranks, given_out);
}

}  // namespace halo
