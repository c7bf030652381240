// Tables of numbers: logit scales, learning rates, rotary frequencies, and the selection rule.
#include <algorithm>
#include <numeric>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/kernels/rope/rope.h"
#include "halo/stages/selection_rule.h"
#include "halo/train/schedule.h"
#include "tests/golden/forms.h"

namespace halo::golden {
namespace {

namespace fs = std::filesystem;

constexpr double kTableBound = 1e-6;  // relative
// The expected frequencies are powers taken in fp32, whose exponents are rounded.
constexpr double kFrequencyBound = 1e-5;

void check_sweep(const fs::path& sweep, const std::string& file, Findings& findings) {
  const json::value parsed = read_json(file);
  const json::object& expected = parsed.as_object();
  const SweepTable table = read_sweep(sweep, {}, {});
  const std::vector<double> scores = halo_scores(table.recall, table.commonsense);
  const std::string name = sweep.filename().string();
  findings.relative(
      name + ": scores", at::tensor(scores, at::kDouble),
      at::tensor(json::value_to<std::vector<double>>(expected.at("scores")), at::kDouble),
      kTableBound);
  const auto selected = json::value_to<std::vector<int64_t>>(expected.at("selected"));
  findings.equal(name + ": selected",
                 top_layers(scores, json_get<int64_t>(expected, "keep", file)) == selected);
  std::vector<int64_t> ranking(scores.size());
  std::iota(ranking.begin(), ranking.end(), 0);
  std::ranges::stable_sort(ranking, std::greater<>(), [&](int64_t i) { return scores[i]; });
  findings.equal(name + ": ranking",
                 ranking == json::value_to<std::vector<int64_t>>(expected.at("ranking")));
}

}  // namespace

void check_logit_scale(const fs::path& folder, Findings& findings) {
  const std::string file = (folder / "expected.json").string();
  const json::value rows = read_json(file);
  for (const json::value& row : rows.as_array()) {
    const json::object& object = row.as_object();
    const double a = json_get<double>(object, "a", file);
    const auto t = json_get<int64_t>(object, "t", file);
    const at::Tensor got = log_position_scale(at::full({1}, t, at::kLong), a);
    findings.relative(fmt::format("s at {} with a = {}", t, a), got.item<double>(),
                      json_get<double>(object, "s", file), kTableBound);
  }
}

void check_schedule(const fs::path& folder, Findings& findings) {
  const std::string file = (folder / "expected.json").string();
  const json::value stages = read_json(file);
  for (const auto& [stage, value] : stages.as_object()) {
    const json::object& object = value.as_object();
    const Schedule schedule{RateCurve::kWarmupCosineLate, json_get<double>(object, "lr", file),
                            json_get<double>(object, "min_lr", file),
                            json_get<int64_t>(object, "warmup", file),
                            json_get<int64_t>(object, "steps", file)};
    for (const auto& [update, rate] : json_get<json::object>(object, "lr_used_in_update", file)) {
      findings.relative(fmt::format("{}, update {}", std::string(stage), std::string(update)),
                        schedule.rate(std::stoll(std::string(update))), rate.to_number<double>(),
                        kTableBound);
    }
  }
}

void check_rope(const fs::path& folder, Findings& findings) {
  const std::string file = (folder / "expected.json").string();
  const json::value tables = read_json(file);
  for (const json::value& table : tables.as_array()) {
    const json::object& object = table.as_object();
    ModelConfig config;
    config.rope_theta = json_get<double>(object, "theta", file);
    const auto size = json_get<int64_t>(object, "head_dim", file);
    const auto want = json::value_to<std::vector<double>>(object.at("inv_freq_fp32"));
    findings.relative(fmt::format("head_dim {}, theta {}", size, config.rope_theta),
                      at::tensor(rope_frequencies(config, size), at::kDouble),
                      at::tensor(want, at::kDouble), kFrequencyBound);
  }
}

void check_selection(const fs::path& folder, Findings& findings) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().stem().string();
    constexpr std::string_view kPrefix = "layer-sweep-";
    if (entry.path().extension() != ".csv" || !name.starts_with(kPrefix)) continue;
    const std::string expected = fmt::format("expected-{}.json", name.substr(kPrefix.size()));
    check_sweep(entry.path(), (folder / expected).string(), findings);
  }
}

}  // namespace halo::golden
