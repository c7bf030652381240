// Losses and gradient norms of the stages that train, and the alignment of each layer.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "halo/base/median.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

double finite_extreme(const std::vector<double>& values, bool largest) {
  double out = kNoNumber;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    if (std::isnan(out) || (largest ? value > out : value < out)) out = value;
  }
  return out;
}

double median_of_finite(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  return median(std::move(values));
}

std::string metric_chart(const Metrics& metrics, const std::string& title,
                         const std::string& column, const std::string& label, Pool pool) {
  const std::vector<double> values = metrics.column(column);
  LineChart chart;
  chart.title = title;
  chart.x = {"tokens"};
  chart.y = values_axis(label, values);
  chart.series = {
      {"", "var(--student)", thin(metrics.column("tokens"), values, pool), Marker::kNone}};
  chart.height = 250;
  return line_chart(chart);
}

// ", 3% of that time waiting for batches"; nothing where no step says its share.
std::string waiting(const Metrics& metrics) {
  const std::vector<double> shares = metrics.column("data_wait"),
                            rates = metrics.column("tokens_per_second");
  double waited = 0, all = 0;  // all steps have the same tokens, so 1 / rate is a step's time
  for (size_t i = 0; i < metrics.rows; ++i) {
    if (!std::isfinite(shares[i]) || !(rates[i] > 0)) continue;
    waited += shares[i] / rates[i];
    all += 1 / rates[i];
  }
  return all > 0 ? fmt::format(", {:.2g}% of that time waiting for batches", 100 * waited / all)
                 : "";
}

std::string training_note(const StageFiles& stage) {
  const Metrics& metrics = stage.metrics;
  const std::vector<double> skipped = metrics.column("skipped");
  std::string out = fmt::format(
      "{} steps, {} tokens, {} of training{}, median {} tokens a second; {} updates skipped, "
      "resumed {} times.",
      format_figure(double(metrics.rows)),
      format_figure(finite_extreme(metrics.column("tokens"), true)),
      format_duration(finite_extreme(metrics.column("seconds"), true)), waiting(metrics),
      format_figure(std::round(median_of_finite(metrics.column("tokens_per_second")))),
      std::ranges::count(skipped, 1.0), stage.count_events("resume"));
  if (metrics.rows > 600) {
    out += fmt::format(
        " A point stands for {} steps or more: the mean of their losses, the largest of their "
        "norms.",
        metrics.rows / 600);
  }
  for (const json::object& event : stage.events) {
    const json::value* text = event.if_contains("text");
    if (text && text->is_string()) out += " " + std::string(text->get_string()) + ".";
    if (out.size() > 1500) break;
  }
  return note(out);
}

// Layer i's column, as align writes them.
std::string layer_column(size_t layer) {
  return fmt::format("layer_{}", layer);
}

std::string layer_errors(const StageFiles& stage) {
  const Metrics& metrics = stage.metrics;
  size_t layers = 0;
  while (metrics.columns.contains(layer_column(layers))) ++layers;
  if (layers == 0) return "";
  LineChart chart;
  chart.title = "Alignment error of each layer while it trains";
  chart.x = {"tokens"};
  chart.y = {"MSE to the teacher's (log axis)", Scale::kLog10};
  const size_t every = (layers + 11) / 12;
  for (size_t layer = 0; layer < layers; ++layer) {
    chart.series.push_back(
        {layer % every == 0 ? fmt::format("layer {}", layer) : "", ramp_color(layer, layers),
         thin(metrics.column("tokens"), metrics.column(layer_column(layer)), Pool::kMean),
         Marker::kNone});
  }
  return line_chart(chart);
}

std::string variance_bars(const JsonView& result, const std::vector<bool>& attention) {
  const std::vector<double> variance = result.numbers("explained_variance");
  if (variance.empty()) return "";
  BarChart chart;
  chart.title = "Explained variance of each layer afterwards, held out";
  chart.x_label = "layer";
  chart.y = {"1 − MSE / variance"};
  for (size_t layer = 0; layer < variance.size(); ++layer) {
    chart.bars.push_back({std::to_string(layer), variance[layer], kNoNumber,
                          layer < attention.size() && attention[layer]});
  }
  if (!attention.empty()) chart.highlight = "layer keeps attention in the student";
  const JsonView gate = result.object("gate");
  chart.horizontal = {
      {gate.number("limit"), "gate on the median: " + format_figure(gate.number("limit"))}};
  chart.height = 300;
  return bar_chart(chart);
}

}  // namespace

std::vector<Point> thin(const std::vector<double>& x, const std::vector<double>& y, Pool pool,
                        size_t limit) {
  const size_t n = std::min(x.size(), y.size()), points = std::min(n, limit);
  std::vector<Point> out;
  for (size_t i = 0; i < points; ++i) {
    const size_t begin = i * n / points, end = (i + 1) * n / points;
    double sum = 0, largest = -HUGE_VAL, count = 0;
    for (size_t j = begin; j < end; ++j) {
      if (!std::isfinite(y[j])) continue;
      sum += y[j];
      largest = std::max(largest, y[j]);
      ++count;
    }
    const double value = count == 0 ? kNoNumber : pool == Pool::kMean ? sum / count : largest;
    out.push_back({x[end - 1], value});
  }
  return out;
}

void add_training(Page& page, const RunFiles& run) {
  std::string body;
  for (const StageFiles& stage : run.stages) {
    if (stage.metrics.rows == 0) continue;
    const JsonView loss = stage.result.view().object("loss");
    const std::string title = loss ? "Loss: " + loss.text("figure") : "Loss";
    body += "<h3>" + escape_html(stage.name) + "</h3>\n";
    body += beside(
        {metric_chart(stage.metrics, title, "loss", loss ? loss.text("unit") : "loss", Pool::kMean),
         metric_chart(stage.metrics, "Gradient norm, before clipping", "grad_norm", "gradient norm",
                      Pool::kMax)});
    body += training_note(stage);
  }
  if (body.empty()) return;
  page.add_section("training", "Training",
                   "Losses on the training batches and norms of their gradients; a gap is a step "
                   "whose figure was not finite.",
                   std::move(body));
}

void add_alignment(Page& page, const RunFiles& run) {
  std::string body;
  const std::vector<bool> attention = attention_layers(run);
  for (const StageFiles& stage : run.stages) {
    const JsonView result = stage.result.view();
    std::vector<std::string> charts;
    for (std::string chart : {layer_errors(stage), variance_bars(result, attention)}) {
      if (!chart.empty()) charts.push_back(std::move(chart));
    }
    if (charts.empty()) continue;
    body += "<h3>" + escape_html(stage.name) + "</h3>\n" + beside(charts);
    const std::vector<double> variance = result.numbers("explained_variance");
    const double worst = result.number("worst_layer");
    if (worst >= 0 && worst < double(variance.size())) {
      body += note(fmt::format("Median over layers {}; worst: layer {} with {}.",
                               format_fixed(result.object("gate").number("value"), 4),
                               format_figure(worst),
                               format_fixed(variance[static_cast<size_t>(worst)], 4)));
    }
  }
  if (body.empty()) return;
  page.add_section("alignment", "Alignment by layer",
                   "Each layer's new mixer learns to give what the teacher's mixer gives on the "
                   "same input.",
                   std::move(body));
}

}  // namespace halo
