// Stages with their gates, tokens and times; the exact command, hashes and recipe.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "halo/base/files.h"
#include "halo/report/run_state.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

std::string state_cell(const StageFiles& stage, const JsonView& gate, const RunState& state) {
  if (state.kind == RunState::Kind::kRunning && state.stage == stage.name) return "running";
  if (!stage.result.view()) return stage.started ? "unfinished" : "not run";
  if (!gate) return stage.failed ? "<span class=\"fail\">✗ failed</span>" : "done";
  return gate.flag("passed") ? "<span class=\"pass\">✓ passed</span>"
                             : "<span class=\"fail\">✗ failed</span>";
}

std::string shown_value(const json::value& value) {
  if (value.is_string()) return "<code>" + escape_html(value.get_string()) + "</code>";
  if (value.is_number()) return format_figure(value.to_number<double>());
  return "<code>" + escape_html(json::serialize(value)) + "</code>";
}

// What the student is, byte for byte.
std::vector<std::vector<std::string>> model_hashes(const std::filesystem::path& model) {
  std::vector<std::vector<std::string>> rows;
  if (!std::filesystem::is_directory(model)) return rows;
  for (const auto& entry : std::filesystem::directory_iterator(model)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file()) continue;
    if (entry.path().extension() != ".safetensors" && entry.path().extension() != ".json") continue;
    rows.push_back({"model/" + escape_html(name), "<code>" + hash_file(entry.path()) + "</code>"});
  }
  std::ranges::sort(rows);
  return rows;
}

}  // namespace

void add_stages(Page& page, const RunFiles& run) {
  const JsonView summary = run.summary.view(), tokens_of = summary.object("tokens_per_stage");
  const RunState state = run_state(run);
  std::vector<std::vector<std::string>> rows;
  double all_tokens = 0;
  for (const StageFiles& stage : run.stages) {
    const JsonView result = stage.result.view(), gate = result.object("gate");
    double tokens = tokens_of.number(stage.name), seconds = result.number("seconds");
    if (!std::isfinite(tokens)) tokens = result.number("tokens");
    if (!result && stage.metrics.rows > 0) {
      tokens = stage.metrics.column("tokens").back();
      seconds = stage.metrics.column("seconds").back();
    }
    if (std::isfinite(tokens)) all_tokens += tokens;
    const std::string bound =
        gate ? escape_html(gate.text("must_be")) + " " + format_figure(gate.number("limit")) : "";
    rows.push_back({escape_html(stage.name), state_cell(stage, gate, state),
                    gate ? format_figure(gate.number("value")) : "", bound,
                    escape_html(gate.text("figure")), format_figure(tokens),
                    format_duration(seconds)});
  }
  if (rows.empty()) return;
  const double seconds = summary.has("seconds") ? summary.number("seconds") : run.seconds;
  rows.push_back({"<b>all stages</b>", "", "", "", "", "<b>" + format_figure(all_tokens) + "</b>",
                  "<b>" + format_duration(seconds) + "</b>"});
  std::string body = "<div class=\"gates\">" +
                     html_table({"Stage", "gate", "value", "must be", "gate's figure",
                                 "tokens trained on", "training time"},
                                rows) +
                     "</div>";
  std::string rate =
      "The time of all stages is that of the whole conversion, search and scoring "
      "included, without the final evaluation.";
  if (summary.has("matrix_gflops")) {
    rate += fmt::format(" This machine's rate of matrix products in the same run: {} GFLOP/s.",
                        format_figure(std::round(summary.number("matrix_gflops"))));
  }
  page.add_section("stages", "Stages and gates", "", body + note(rate));
}

void add_provenance(Page& page, const RunFiles& run) {
  std::string body;
  std::vector<std::vector<std::string>> rows;
  if (const JsonView environment = run.environment.view()) {
    const std::string command = environment.text("command");
    if (!command.empty()) body += "<pre>" + escape_html(command) + "</pre>\n";
    for (const auto& [key, value] : environment.members()) {
      if (key != "command") rows.push_back({escape_html(key), shown_value(value)});
    }
  }
  for (auto& row : model_hashes(run.folder / "model")) rows.push_back(std::move(row));
  if (!rows.empty()) {
    body += "<div class=\"facts\">" + html_table({"", "value or XXH3-128 hash"}, rows) + "</div>";
  }
  if (!run.recipe.empty()) {
    body += "<details><summary>Recipe as resolved (config.resolved.toml)</summary><pre>" +
            escape_html(run.recipe) + "</pre></details>\n";
  }
  if (body.empty()) return;
  page.add_section("provenance", "Commands and hashes", "", std::move(body));
}

}  // namespace halo
