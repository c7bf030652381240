// Which layers keep attention: the search.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "halo/report/sections.h"

namespace halo {
namespace {

std::string layers_text(const JsonView& candidate) {
  std::string out;
  for (const double layer : candidate.numbers("layers")) {
    out += (out.empty() ? "" : ", ") + format_figure(layer);
  }
  return out.empty() ? "none" : out;
}

bool contains(const std::vector<double>& values, double value) {
  return std::ranges::find(values, value) != values.end();
}

// Standard errors of the rule's scores, where the score is one of the measured figures.
std::vector<double> score_errors(const std::string& rule, const std::vector<JsonView>& candidates) {
  std::vector<double> out;
  const char* key = rule == "kl" ? "kl_stderr" : rule == "recall" ? "needle_logprob_stderr" : "";
  for (const JsonView& candidate : candidates) out.push_back(candidate.number(key));
  return out;
}

std::string score_bars(const JsonView& selection, const std::vector<JsonView>& candidates) {
  const std::vector<double> scores = selection.numbers("scores");
  if (scores.empty()) return "";
  const std::string rule = selection.text("rule");
  const std::vector<double> kept = selection.numbers("layers");
  const std::vector<double> errors = score_errors(rule, candidates);
  BarChart chart;
  chart.title = rule == "gate" ? "How much of its attention each layer's gate keeps"
                               : fmt::format("Score of each layer, {} alone, by the rule '{}'",
                                             rule == "probe" ? "kept" : "swapped", rule);
  chart.x_label = "layer";
  chart.y = {rule == "kl"       ? "KL (nats a token)"
             : rule == "recall" ? "−ln p of a needle's digit"
             : rule == "gate"   ? "gate"
             : rule == "probe"  ? "−loss (nats a token)"
                                : "score"};
  chart.highlight = "keeps attention";
  for (size_t layer = 0; layer < scores.size(); ++layer) {
    chart.bars.push_back({std::to_string(layer), scores[layer],
                          layer < errors.size() ? errors[layer] : kNoNumber,
                          contains(kept, double(layer))});
  }
  return bar_chart(chart);
}

std::string frequency_bars(const JsonView& selection) {
  const std::vector<double> frequency = selection.numbers("frequency");
  if (frequency.empty()) return "";
  const std::vector<double> kept = selection.numbers("layers");
  BarChart chart;
  chart.title = "How often bootstrap resamples keep a layer";
  chart.x_label = "layer";
  chart.y = {"share of resamples", Scale::kLinear, 0, 1.08};
  chart.highlight = "keeps attention";
  chart.height = 300;
  for (size_t layer = 0; layer < frequency.size(); ++layer) {
    chart.bars.push_back(
        {std::to_string(layer), frequency[layer], kNoNumber, contains(kept, double(layer))});
  }
  return bar_chart(chart);
}

Point candidate_point(const JsonView& candidate, const std::string& what) {
  return {candidate.number("kl"), candidate.number("needle_logprob"), candidate.number("kl_stderr"),
          candidate.number("needle_logprob_stderr"),
          fmt::format("{} {}: needle digits {}, KL {}, accuracy {}", what, layers_text(candidate),
                      format_estimate(candidate.number("needle_logprob"),
                                      candidate.number("needle_logprob_stderr"), 3),
                      format_estimate(candidate.number("kl"), candidate.number("kl_stderr"), 4),
                      format_fixed(candidate.number("needle_accuracy"), 3))};
}

// The one layer of a swap.
double candidate_layer(const JsonView& swap) {
  const std::vector<double> layers = swap.numbers("layers");
  return layers.empty() ? kNoNumber : layers.front();
}

bool are_swaps(const std::vector<JsonView>& candidates) {
  return !candidates.empty() && candidates.front().flag("swapped");
}

// Candidates by both figures: sets beside the chosen one and nothing kept, or single layers
// swapped in the teacher.
std::string scatter(const JsonView& selection, const std::vector<JsonView>& candidates) {
  const bool swaps = are_swaps(candidates);
  const std::string chosen = layers_text(selection.object("chosen"));
  const std::vector<double> kept = selection.numbers("layers");
  LineChart chart;
  chart.title = swaps ? "The teacher with one layer swapped" : "Sets of kept layers";
  chart.x = {"KL from the teacher (nats a token; log axis)", Scale::kLog10};
  chart.y = {"mean ln p of a needle's digit"};
  Series others{
      swaps ? "another layer" : "another set", "var(--teacher)", {}, Marker::kSquare, false};
  Series best{swaps ? "a layer that keeps attention" : "chosen: " + chosen,
              "var(--student)",
              {},
              Marker::kCircle,
              false};
  for (const JsonView& candidate : candidates) {
    const bool is_best =
        swaps ? contains(kept, candidate_layer(candidate)) : layers_text(candidate) == chosen;
    (is_best ? best : others)
        .points.push_back(candidate_point(candidate, swaps ? "layer" : "keeping"));
  }
  if (!swaps && best.points.empty()) {
    best.points.push_back(candidate_point(selection.object("chosen"), "keeping"));
  }
  chart.series = {std::move(others), std::move(best)};
  if (const JsonView nothing = selection.object("nothing_kept"); nothing && !swaps) {
    chart.series.push_back({"no layer kept",
                            "var(--unscaled)",
                            {candidate_point(nothing, "keeping")},
                            Marker::kTriangle,
                            false});
  }
  return line_chart(chart);
}

// The best candidates by needles, with the chosen set marked.
std::string candidate_table(const JsonView& selection, std::vector<JsonView> candidates) {
  const bool swapped = are_swaps(candidates);
  const std::string chosen = layers_text(selection.object("chosen"));
  const auto rank = [](const JsonView& c) {  // without a number: last
    const double needle = c.number("needle_logprob");
    return std::isfinite(needle) ? needle : -HUGE_VAL;
  };
  constexpr size_t kShown = 8;
  const size_t all = candidates.size();
  if (!swapped) {
    std::ranges::stable_sort(candidates, [&](const JsonView& a, const JsonView& b) {
      const bool a_chosen = layers_text(a) == chosen, b_chosen = layers_text(b) == chosen;
      if (a_chosen != b_chosen) return a_chosen;
      return rank(a) > rank(b);
    });
    candidates.resize(std::min(candidates.size(), kShown));
  }
  std::vector<std::vector<std::string>> rows;
  for (const JsonView& c : candidates) {
    const std::string layers = layers_text(c);
    rows.push_back(
        {!swapped && layers == chosen ? "<b>" + layers + " (chosen)</b>" : layers,
         format_estimate(c.number("needle_logprob"), c.number("needle_logprob_stderr"), 3),
         format_fixed(c.number("needle_accuracy"), 3),
         format_estimate(c.number("kl"), c.number("kl_stderr"), 4),
         format_fixed(c.number("loss"), 4)});
  }
  if (rows.empty()) return "";
  std::string out =
      html_table({swapped ? "Layer swapped" : "Layers kept", "mean ln p of a needle's digit",
                  "needles found", "KL (nats a token)", "loss (nats a token)"},
                 rows);
  // As many rows as layers: there for who asks.
  if (swapped) return "<details><summary>All figures</summary>" + out + "</details>\n";
  if (candidates.size() < all) {
    out += note(fmt::format("The chosen set and the next best by needles, of {} scored.", all));
  }
  return out;
}

// Of a sweep over tasks: every task's figure with each layer swapped.
std::string sweep_table(const JsonView& sweep) {
  const std::vector<JsonView> tasks = sweep.objects("tasks");
  if (tasks.empty()) return "";
  std::vector<std::string> header = {"Layer swapped"};
  std::vector<std::string> teacher = {"none (teacher)"};
  std::vector<std::vector<std::string>> rows;
  for (const JsonView& task : tasks) {
    header.push_back(escape_html(fmt::format("{} ({})", task.text("name"), task.text("kind"))));
    teacher.push_back(format_estimate(task.number("teacher"), task.number("teacher_stderr"), 3));
    const std::vector<double> swapped = task.numbers("swapped");
    rows.resize(std::max(rows.size(), swapped.size()));
    for (size_t layer = 0; layer < swapped.size(); ++layer) {
      if (rows[layer].empty()) rows[layer].push_back(std::to_string(layer));
      rows[layer].push_back(format_fixed(swapped[layer], 3));
    }
  }
  rows.insert(rows.begin(), teacher);
  const JsonView cost = sweep.object("cost");
  return "<details><summary>Tasks by layer</summary>" + html_table(header, rows) + "</details>\n" +
         note(fmt::format(
             "One pass over all layers: {} of the FLOPs and {} of the time of as many "
             "evaluations.",
             format_fixed(cost.number("flops") / cost.number("flops_of_whole_evaluations"), 2),
             format_fixed(cost.number("seconds") / cost.number("seconds_of_whole_evaluations"),
                          2)));
}

}  // namespace

void add_selection(Page& page, const RunFiles& run) {
  const JsonView selection = run.selection.view();
  if (!selection) return;
  std::vector<JsonView> candidates = selection.objects("candidates");
  const size_t keep = selection.numbers("layers").size();
  // A greedy search also scored smaller sets; those do not compare.
  std::erase_if(candidates, [&](const JsonView& c) {
    return !c.flag("swapped") && c.numbers("layers").size() != keep;
  });
  std::vector<std::string> charts;
  for (std::string chart : {score_bars(selection, candidates), frequency_bars(selection),
                            scatter(selection, candidates)}) {
    if (!chart.empty()) charts.push_back(std::move(chart));
  }
  page.add_section(
      "selection", "Which layers keep attention",
      fmt::format("Rule '{}' kept layers {}. Scored on the search half of the held-out text, right "
                  "after alignment; error bars and ± are one standard error, clustered by haystack "
                  "for needles and by row of text for the KL.",
                  selection.text("rule"), layers_text(selection)),
      beside(charts) + candidate_table(selection, std::move(candidates)) +
          sweep_table(selection.object("sweep")));
}

}  // namespace halo
