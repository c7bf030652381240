// Charts of cells and bars: bar chart, heat map, layer strip.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "halo/base/check.h"
#include "halo/report/frame.h"

namespace halo {
namespace {

constexpr const char* kPlainBar = "var(--teacher)";
constexpr const char* kHighlight = "var(--student)";

std::string bar_legend(const std::string& highlight) {
  if (highlight.empty()) return "";
  return fmt::format(
      "<span><svg viewBox=\"0 0 26 12\" style=\"color:{}\"><rect class=\"bar\" x=\"7\" "
      "width=\"12\" height=\"12\"/></svg>{}</span>",
      kHighlight, escape_html(highlight));
}

}  // namespace

std::string bar_chart(const BarChart& chart) {
  const Box box = plot_box(chart.width, chart.height);
  std::vector<double> values = {0};
  for (const Bar& bar : chart.bars) {
    const double error = std::isfinite(bar.error) ? bar.error : 0;
    values.insert(values.end(), {bar.value - error, bar.value + error});
  }
  for (const Guide& guide : chart.horizontal) values.push_back(guide.value);
  const AxisMap y(chart.y, values, 0.05, box.bottom, box.top);
  const double pitch = (box.right - box.left) / std::max<double>(1, double(chart.bars.size()));
  // No more labels than there is room for.
  const size_t every = std::max<size_t>(1, static_cast<size_t>(std::ceil(18 / pitch)));

  std::string out =
      open_figure(chart.title, chart.width, chart.height, bar_legend(chart.highlight));
  out += grid_y(box, y, chart.y.label);
  const double zero = y.pixel(0);
  for (size_t i = 0; i < chart.bars.size(); ++i) {
    const Bar& bar = chart.bars[i];
    const double middle = box.left + (double(i) + 0.5) * pitch;
    if (i % every == 0) out += svg_text(middle, box.bottom + 16, "mid", bar.label);
    if (!std::isfinite(bar.value)) continue;
    const double top = y.pixel(bar.value), width = std::min(40.0, 0.66 * pitch);
    out += fmt::format(
        "<g style=\"color:{}\">{}<rect class=\"bar\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" "
        "height=\"{:.1f}\"/></g>",
        bar.highlighted ? kHighlight : kPlainBar,
        tooltip(fmt::format("{}: {}", bar.label, format_estimate(bar.value, bar.error, 4))),
        middle - width / 2, std::min(top, zero), width, std::fabs(zero - top));
    const double error = std::isfinite(bar.error) ? bar.error : 0;
    if (error > 0) {
      out += "<g style=\"color:var(--text)\">" +
             error_bar(middle, y.pixel(bar.value - error), y.pixel(bar.value + error), true) +
             "</g>";
    }
    if (pitch >= 34) {
      out += svg_text(middle, y.pixel(std::max(0.0, bar.value + error)) - 4, "mid",
                      format_fixed(bar.value, 2));
    }
  }
  out +=
      fmt::format("<line class=\"base\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>",
                  box.left, box.right, zero, zero);
  out += guides_y(box, y, chart.horizontal);
  return out + svg_text((box.left + box.right) / 2, box.bottom + 36, "axis", chart.x_label) +
         close_figure();
}

std::string heat_map(const HeatMap& map) {
  const size_t rows = map.rows.size(), columns = map.columns.size();
  HALO_CHECK(map.values.size() == rows * columns, "heat_map: {} values for {} x {} cells",
             map.values.size(), rows, columns);
  constexpr double kLeft = 48, kTop = 18, kRow = 28;
  const double pitch = (map.width - kLeft - 4) / std::max<double>(1, double(columns));
  const double bottom = kTop + kRow * double(rows);
  std::string out = open_figure(map.title, map.width, bottom + 42, "");
  for (size_t r = 0; r < rows; ++r) {
    const double y = kTop + kRow * double(r);
    out += svg_text(kLeft - 6, y + kRow / 2 + 4, "end", map.rows[r]);
    for (size_t c = 0; c < columns; ++c) {
      const double value = map.values[r * columns + c], x = kLeft + pitch * double(c);
      const double fill = std::isfinite(value) ? std::clamp(value, 0.0, 1.0) : 0;
      out += fmt::format(
          "<g>{}<rect class=\"cell\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:g}\" "
          "fill-opacity=\"{:.2f}\"/>",
          tooltip(map.notes.empty() ? "" : map.notes[r * columns + c]), x, y, pitch, kRow, fill);
      out += svg_text(x + pitch / 2, y + kRow / 2 + 4, fill > 0.55 ? "strong" : "pale",
                      format_fixed(value, 2)) +
             "</g>";
    }
  }
  for (size_t c = 0; c < columns; ++c) {
    out += svg_text(kLeft + pitch * (double(c) + 0.5), bottom + 15, "mid", map.columns[c]);
  }
  if (map.border > 0) {
    const double x = kLeft + pitch * double(map.border);
    out += fmt::format(
        "<g style=\"color:var(--text)\"><line class=\"guideline\" x1=\"{:.1f}\" x2=\"{:.1f}\" "
        "y1=\"{:g}\" y2=\"{:g}\"/></g>",
        x, x, kTop - 12, bottom);
    out += svg_text(x + 5, kTop - 5, "", map.border_label);
  }
  out += svg_text((kLeft + map.width) / 2, bottom + 34, "axis", map.x_label);
  out +=
      fmt::format("<text class=\"axis\" transform=\"translate(11 {:.1f}) rotate(-90)\">{}</text>",
                  (kTop + bottom) / 2, escape_html(map.y_label));
  return out + close_figure();
}

std::string layer_strip(const std::vector<bool>& attention) {
  constexpr double kCell = 30, kRowCells = 32;
  const double n = double(attention.size());
  const double rows = std::ceil(n / kRowCells), width = kCell * std::min(n, kRowCells);
  std::string out = fmt::format(
      "<svg class=\"strip\" style=\"max-width:{:g}px\" viewBox=\"0 0 {:g} {:g}\" role=\"img\" "
      "aria-label=\"mixer of each layer\">",
      width, width, rows * kCell);
  for (size_t i = 0; i < attention.size(); ++i) {
    const double x = kCell * std::fmod(double(i), kRowCells),
                 y = kCell * std::floor(double(i) / kRowCells);
    out += fmt::format(
        "<g>{}<rect class=\"cell\" x=\"{:g}\" y=\"{:g}\" width=\"{:g}\" height=\"{:g}\" rx=\"4\" "
        "fill-opacity=\"{}\"/>{}</g>",
        tooltip(fmt::format("layer {}: {}", i, attention[i] ? "attention" : "lightning attention")),
        x + 1.5, y + 1.5, kCell - 3, kCell - 3, attention[i] ? 1 : 0,
        svg_text(x + kCell / 2, y + kCell / 2 + 4, attention[i] ? "strong" : "pale",
                 std::to_string(i)));
  }
  return out + "</svg>";
}

}  // namespace halo
