// One axis of a chart: from values to pixels, and where its ticks go.
#pragma once

#include <string>
#include <vector>

#include "halo/report/markup.h"

namespace halo {

enum class Scale { kLinear, kLog2, kLog10 };

struct Tick {
  double value = 0;
  std::string label;
  std::string short_label = {};  // where there is little room; empty: `label`
};

struct Axis {
  std::string label;  // with its unit
  Scale scale = Scale::kLinear;
  double min = kNoNumber, max = kNoNumber;  // not finite: from the data
  std::vector<Tick> ticks;                  // empty: chosen
};

// Of shares, which end at 1: from 0 where `lowest`, the smallest of them, is below one half, else
// from the tenth below it.
Axis share_axis(std::string label, double lowest);

// Of these values: logarithmic, and its label says so, where they span more than a factor of 8.
Axis values_axis(std::string label, const std::vector<double>& values);

// Whether a chart can show the value on that scale: finite, and positive on a logarithmic one.
bool has_place(Scale scale, double value);

// An axis with its range settled.
class AxisMap {
 public:
  // `values`: what the range must cover, where the axis leaves it open. `from` and `to`: pixels.
  // `padding`: a share of the range added on either side that is open.
  AxisMap(const Axis& axis, const std::vector<double>& values, double padding, double from,
          double to);

  // Pixel of a value, moved into the frame where it lies outside.
  double pixel(double value) const;
  std::vector<Tick> ticks() const;

 private:
  double position(double value) const;  // on the scale: the value or its logarithm
  std::vector<Tick> log_ticks() const;  // powers of the base, every n-th; few decades: 2 and 5 too

  const Axis axis_;
  double low_ = 0, high_ = 1;  // positions
  double from_, to_;
};

}  // namespace halo
