// What charts share: a figure drawn for several widths, the frame with grid, ticks, labels, guides.
#pragma once

#include <functional>

#include "halo/report/svg.h"

namespace halo {

struct Drawing {
  double height;
  std::string svg;
};
// Title, legend and one svg for each width that `place` may have.
std::string figure(const std::string& title, const std::string& legend, Place place,
                   const std::function<Drawing(double width)>& draw);

struct Box {
  double left, right, top, bottom;
  double width;  // of the whole chart: labels stay inside it
};
// Pixels above the plot, and below it for ticks and label of its x axis.
inline constexpr double kRoomAbove = 18, kRoomBelow = 46;
// The plot inside a chart of that size, right of the labels of its y axis.
Box plot_box(double width, double height, const AxisMap& y);

// Pixels of a text in a chart's letters, about.
double text_width(std::string_view text);
// Labels in the middle of their places, at height `y`; if they do not all fit, their short forms,
// or every n-th.
struct PlacedTick {
  double x;
  const Tick& tick;
};
std::string labels_x(const Box& box, const std::vector<PlacedTick>& ticks, double y);
// Text with its middle at x, or as near as it can be inside the chart.
std::string text_inside(const Box& box, double x, double y, std::string_view css_class,
                        std::string_view text);

std::string grid_y(const Box& box, const AxisMap& y, const std::string& label);
std::string ticks_x(const Box& box, const AxisMap& x, const std::string& label);
std::string guide_y(const Box& box, const AxisMap& y, const Guide& guide);  // the line alone
std::string guides_y(const Box& box, const AxisMap& y, const std::vector<Guide>& guides);
std::string guides_x(const Box& box, const AxisMap& x, const std::vector<Guide>& guides);

std::string svg_text(double x, double y, std::string_view css_class, std::string_view text);
// An error bar from `low` to `high`, upright at `at` or lying.
std::string error_bar(double at, double low, double high, bool upright);
std::string marker_shape(Marker marker, double x, double y, double radius);
std::string tooltip(const std::string& note);  // a <title>, or nothing

}  // namespace halo
