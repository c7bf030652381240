#include <fmt/format.h>

#include <cmath>

#include "halo/report/frame.h"

namespace halo {
namespace {

std::string legend(const std::vector<Series>& all) {
  std::string out;
  for (const Series& series : all) {
    if (series.name.empty()) continue;
    out += fmt::format("<span><svg viewBox=\"0 0 26 12\" style=\"color:{}\">", series.color);
    if (series.line) {
      out += fmt::format("<path class=\"line{}\" d=\"M1 6H25\"/>", series.dashed ? " dashed" : "");
    }
    out += marker_shape(series.marker, 13, 6, 4) + "</svg>" + escape_html(series.name) + "</span>";
  }
  return out;
}

class Plot {
 public:
  Plot(const LineChart& chart, double width)
      : chart_(chart),
        y_(chart.y, covered(false), 0.06, chart.height - kRoomBelow, kRoomAbove),
        box_(plot_box(width, chart.height, y_)),
        x_(chart.x, covered(true), 0.03, box_.left, box_.right) {}

  std::string draw() const {
    std::string out = grid_y(box_, y_, chart_.y.label) + ticks_x(box_, x_, chart_.x.label);
    out += guides_x(box_, x_, chart_.vertical);
    for (const Series& series : chart_.series) {
      out += fmt::format("<g style=\"color:{}\">", series.color);
      if (series.line) out += line(series);
      if (series.marker != Marker::kNone) out += markers(series);
      out += "</g>";
    }
    return out + guides_y(box_, y_, chart_.horizontal);
  }

 private:
  bool shown(const Point& point) const {
    return has_place(chart_.x.scale, point.x) && has_place(chart_.y.scale, point.y);
  }

  // Values that an axis must reach: points with their errors, and guides.
  std::vector<double> covered(bool x) const {
    std::vector<double> out;
    for (const Series& series : chart_.series) {
      for (const Point& point : series.points) {
        if (!shown(point)) continue;
        const double value = x ? point.x : point.y, error = x ? point.x_error : point.y_error;
        out.push_back(value);
        if (!std::isfinite(error)) continue;
        out.push_back(value - error);
        out.push_back(value + error);
      }
    }
    for (const Guide& guide : x ? chart_.vertical : chart_.horizontal) out.push_back(guide.value);
    return out;
  }

  double x_of(const Series& series, const Point& point) const {
    return x_.pixel(point.x) + series.shift;
  }

  std::string line(const Series& series) const {
    std::string path;
    bool pen_down = false;
    for (const Point& point : series.points) {
      if (!shown(point)) {
        pen_down = false;
        continue;
      }
      // The zero-length step makes a point between two gaps a dot.
      path += fmt::format("{}{:.1f} {:.1f}{}", pen_down ? 'L' : 'M', x_of(series, point),
                          y_.pixel(point.y), pen_down ? "" : "h0");
      pen_down = true;
    }
    return fmt::format("<path class=\"line{}\" d=\"{}\"/>", series.dashed ? " dashed" : "", path);
  }

  std::string markers(const Series& series) const {
    std::string out;
    for (const Point& p : series.points) {
      if (!shown(p)) continue;
      const double x = x_of(series, p), y = y_.pixel(p.y);
      out += "<g>" + tooltip(p.note);
      if (std::isfinite(p.y_error)) {
        out += error_bar(x, y_.pixel(p.y - p.y_error), y_.pixel(p.y + p.y_error), true);
      }
      if (std::isfinite(p.x_error)) {
        out += error_bar(y, x_.pixel(p.x - p.x_error), x_.pixel(p.x + p.x_error), false);
      }
      out += marker_shape(series.marker, x, y, 4) + "</g>";
    }
    return out;
  }

  const LineChart& chart_;
  const AxisMap y_;
  const Box box_;
  const AxisMap x_;
};

}  // namespace

std::string line_chart(const LineChart& chart) {
  return figure(chart.title, legend(chart.series), chart.place, [&](double width) {
    return Drawing{chart.height, Plot(chart, width).draw()};
  });
}

}  // namespace halo
