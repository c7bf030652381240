// What line and bar charts share: the frame with grid, ticks, labels and guides.
#pragma once

#include "halo/report/svg.h"

namespace halo {

struct Box {
  double left, right, top, bottom;
};
// The plot inside a chart of that size.
Box plot_box(double width, double height);

std::string open_figure(const std::string& title, double width, double height,
                        const std::string& legend);
std::string close_figure();

std::string grid_y(const Box& box, const AxisMap& y, const std::string& label);
std::string ticks_x(const Box& box, const AxisMap& x, const std::string& label, bool grid);
std::string guides_y(const Box& box, const AxisMap& y, const std::vector<Guide>& guides);
std::string guides_x(const Box& box, const AxisMap& x, const std::vector<Guide>& guides);

std::string svg_text(double x, double y, std::string_view css_class, std::string_view text);
// An error bar from `low` to `high`, upright at `at` or lying.
std::string error_bar(double at, double low, double high, bool upright);
std::string marker_shape(Marker marker, double x, double y, double radius);
std::string tooltip(const std::string& note);  // a <title>, or nothing

}  // namespace halo
