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

StepTalk step_talk(const Links& links, int64_t ranks, Shard shard, const StageCost& cost,
                   int64_t compute_bytes, int64_t micro_batches) {
  if (links.in_node == 0) return {};  // between threads nothing is sent
  const auto parameters = double(cost.trained.all), batches = double(micro_batches);
  const auto c = double(compute_bytes);
  StepTalk talk;
  talk.beside = gather_seconds(links, ranks, 4 * parameters);
  if (shard != Shard::kFull) talk.share_beside = 1 / batches;
  if (shard == Shard::kNone) talk.before = gather_seconds(links, ranks, 4 * parameters);
  if (shard == Shard::kOptimizer) talk.beside += gather_seconds(links, ranks, c * parameters);
  if (shard == Shard::kFull) {
    talk.beside += gather_seconds(links, ranks, c * (2 * parameters + double(cost.frozen.all)));
    talk.beside *= batches;
  }
  return talk;
}

}  // namespace halo
