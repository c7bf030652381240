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

// Guides are named here, since words across bars hide them.
std::string bar_legend(const BarChart& chart) {
  std::string out;
  if (!chart.highlight.empty()) {
    out = fmt::format(
        "<span><svg viewBox=\"0 0 26 12\" style=\"color:{}\"><rect class=\"bar\" x=\"7\" "
        "width=\"12\" height=\"12\"/></svg>{}</span>",
        kHighlight, escape_html(chart.highlight));
  }
  for (const Guide& guide : chart.horizontal) {
    out += fmt::format(
        "<span><svg viewBox=\"0 0 26 12\" style=\"color:{}\"><path class=\"guideline\" "
        "d=\"M1 6H25\"/></svg>{}</span>",
        guide.color, escape_html(guide.label));
  }
  return out;
}

std::string draw_bars(const BarChart& chart, double width) {
  std::vector<double> values = {0};
  for (const Bar& bar : chart.bars) {
    const double error = std::isfinite(bar.error) ? bar.error : 0;
    values.insert(values.end(), {bar.value - error, bar.value + error});
  }
  for (const Guide& guide : chart.horizontal) values.push_back(guide.value);
  const AxisMap y(chart.y, values, 0.05, chart.height - kRoomBelow, kRoomAbove);
  const Box box = plot_box(width, chart.height, y);
  const double pitch = (box.right - box.left) / std::max<double>(1, double(chart.bars.size()));

  std::string out = grid_y(box, y, chart.y.label);
  const double zero = y.pixel(0);
  std::vector<Tick> names;
  for (const Bar& bar : chart.bars) names.push_back({0, bar.label});
  std::vector<PlacedTick> labels;
  for (size_t i = 0; i < chart.bars.size(); ++i) {
    const Bar& bar = chart.bars[i];
    const double middle = box.left + (double(i) + 0.5) * pitch;
    labels.push_back({middle, names[i]});
    if (!std::isfinite(bar.value)) continue;
    const double top = y.pixel(bar.value), thickness = std::min(40.0, 0.66 * pitch);
    out += fmt::format(
        "<g style=\"color:{}\">{}<rect class=\"bar\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" "
        "height=\"{:.1f}\"/></g>",
        bar.highlighted ? kHighlight : kPlainBar,
        tooltip(fmt::format("{}: {}", bar.label, format_estimate(bar.value, bar.error, 4))),
        middle - thickness / 2, std::min(top, zero), thickness, std::fabs(zero - top));
    const double error = std::isfinite(bar.error) ? bar.error : 0;
    if (error > 0) {
      out += "<g style=\"color:var(--text)\">" +
             error_bar(middle, y.pixel(bar.value - error), y.pixel(bar.value + error), true) +
             "</g>";
    }
    const std::string figure = format_fixed(bar.value, 2);
    if (pitch >= text_width(figure) + 4) {
      out += svg_text(middle, y.pixel(std::max(0.0, bar.value + error)) - 4, "mid", figure);
    }
  }
  out +=
      fmt::format("<line class=\"base\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>",
                  box.left, box.right, zero, zero);
  for (const Guide& guide : chart.horizontal) out += guide_y(box, y, guide);
  return out + labels_x(box, labels, box.bottom + 16) +
         text_inside(box, (box.left + box.right) / 2, box.bottom + 36, "axis", chart.x_label);
}

Drawing draw_heat(const HeatMap& map, double width) {
  constexpr double kLeft = 48, kTop = 18, kRow = 28;
  const size_t rows = map.rows.size(), columns = map.columns.size();
  const double pitch = (width - kLeft - 4) / std::max<double>(1, double(columns));
  const Box box{kLeft, width - 4, kTop, kTop + kRow * double(rows), width};
  // Two decimals take 25 pixels.
  const int decimals = pitch >= 29 ? 2 : 1;
  std::string out;
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
                      format_fixed(value, decimals)) +
             "</g>";
    }
  }
  std::vector<PlacedTick> labels;
  for (size_t c = 0; c < columns; ++c) {
    labels.push_back({kLeft + pitch * (double(c) + 0.5), map.columns[c]});
  }
  out += labels_x(box, labels, box.bottom + 15);
  if (map.border > 0) {
    const double x = kLeft + pitch * double(map.border);
    out += fmt::format(
        "<g style=\"color:var(--text)\"><line class=\"guideline\" x1=\"{:.1f}\" x2=\"{:.1f}\" "
        "y1=\"{:g}\" y2=\"{:g}\"/></g>",
        x, x, kTop - 12, box.bottom);
    out += text_inside(box, x + 5 + text_width(map.border_label) / 2, kTop - 5, "mid",
                       map.border_label);
  }
  out += text_inside(box, (box.left + box.right) / 2, box.bottom + 34, "axis", map.x_label);
  out +=
      fmt::format("<text class=\"axis\" transform=\"translate(11 {:.1f}) rotate(-90)\">{}</text>",
                  (box.top + box.bottom) / 2, escape_html(map.y_label));
  return {box.bottom + 42, std::move(out)};
}

}  // namespace

std::string bar_chart(const BarChart& chart) {
  return figure(chart.title, bar_legend(chart), Place::kHalf, [&](double width) {
    return Drawing{chart.height, draw_bars(chart, width)};
  });
}

std::string heat_map(const HeatMap& map) {
  HALO_CHECK(map.values.size() == map.rows.size() * map.columns.size(),
             "heat_map: {} values for {} x {} cells", map.values.size(), map.rows.size(),
             map.columns.size());
  return figure(map.title, "", Place::kThird, [&](double width) { return draw_heat(map, width); });
}

std::string layer_strip(const std::vector<bool>& attention) {
  std::string out = "<div class=\"strip\" role=\"img\" aria-label=\"mixer of each layer\">";
  for (size_t i = 0; i < attention.size(); ++i) {
    out += fmt::format("<span{} title=\"layer {}: {}\">{}</span>",
                       attention[i] ? " class=\"kept\"" : "", i,
                       attention[i] ? "attention" : "lightning attention", i);
  }
  return out + "</div>\n";
}

}  // namespace halo
