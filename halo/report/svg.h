// Charts as figures of inline SVG: line chart (also a scatter), bar chart, heat map, mixer strip.
// All text is escaped here. A chart is drawn once for each width that its place may have, and the
// style shows the one that fits, so that letters keep their size on a telephone. Sizes are in
// pixels of the viewBox, which the page scales a little. Colours are CSS values, so that the page's
// variables serve light and dark; chart_css() holds the rest.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "halo/report/axis.h"

namespace halo {

std::string_view chart_css();

// What a chart fills where the window is wide.
enum class Place { kSection, kHalf, kThird };

enum class Marker { kNone, kCircle, kSquare, kTriangle };

struct Point {
  double x = kNoNumber, y = kNoNumber;              // not finite: a gap
  double x_error = kNoNumber, y_error = kNoNumber;  // standard errors
  std::string note;                                 // shown on hover
};

struct Series {
  std::string name;   // in the legend; empty: not there
  std::string color;  // CSS
  std::vector<Point> points;
  Marker marker = Marker::kNone;
  bool line = true, dashed = false;
  double shift = 0;  // pixels to the right, so that error bars of several series stay apart
};

// A straight line across the plot at a value, with a few words.
struct Guide {
  double value = 0;
  std::string label;
  std::string color = "var(--muted)";
};

struct LineChart {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
  std::vector<Guide> vertical, horizontal;
  Place place = Place::kHalf;
  double height = 300;
};
std::string line_chart(const LineChart& chart);

struct Bar {
  std::string label;
  double value = kNoNumber, error = kNoNumber;
  bool highlighted = false;
};
struct BarChart {
  std::string title, x_label;
  Axis y;
  std::vector<Bar> bars;
  std::string highlight;  // what a highlighted bar is; empty: no legend
  std::vector<Guide> horizontal;
  double height = 280;
};
std::string bar_chart(const BarChart& chart);

// Values from 0 to 1, each written in its cell.
struct HeatMap {
  std::string title, x_label, y_label;
  std::vector<Tick> columns;  // labels alone
  std::vector<std::string> rows;
  std::vector<double> values;      // [rows, columns]; not finite: an empty cell
  std::vector<std::string> notes;  // the same, shown on hover; may be empty
  size_t border = 0;               // a line after this many columns; 0: none
  std::string border_label;
};
std::string heat_map(const HeatMap& map);

// A cell a layer, the attention layers filled; rows break where the window does.
std::string layer_strip(const std::vector<bool>& attention);

// Colour of series `i` of `n` in an order (layers): dark blue over green to yellow.
std::string ramp_color(size_t i, size_t n);

}  // namespace halo
