#include "halo/report/axis.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace halo {

namespace {

// Beyond these a chart shows nothing, and differences could overflow.
constexpr double kLargest = 1e100, kSmallest = 1e-100;

// Significant digits that tell values `step` apart, the largest of which is `size`.
int digits_for(double size, double step) {
  const double digits = std::floor(std::log10(size)) - std::floor(std::log10(step)) + 1;
  return static_cast<int>(std::clamp(digits, 3.0, 9.0));
}

// Multiples of 1, 2 or 5 times a power of ten, 4 to 8 of them.
std::vector<Tick> linear_ticks(double low, double high) {
  const double rough = (high - low) / 7;
  const double decade = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * decade;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * decade >= rough) step = factor * decade;
  }
  std::vector<Tick> out;
  const double slack = 1e-9 * (high - low);
  const int digits = digits_for(std::max({std::fabs(low), std::fabs(high), step}), step);
  for (double i = std::ceil((low - slack) / step); i * step <= high + slack; ++i) {
    // Adding zero turns -0 into 0.
    out.push_back({i * step, format_short(i * step + 0.0, digits)});
  }
  return out;
}

}  // namespace

Axis share_axis(std::string label, double lowest) {
  const double low = lowest >= 0.5 ? std::min(0.9, std::floor(10 * lowest) / 10) : 0;
  return {std::move(label), Scale::kLinear, low, 1 + 0.04 * (1 - low)};
}

Axis values_axis(std::string label, const std::vector<double>& values) {
  double low = HUGE_VAL, high = -HUGE_VAL;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low > 0 && high > 8 * low) return {label + " (log axis)", Scale::kLog10};
  return {std::move(label), Scale::kLinear};
}

bool has_place(Scale scale, double value) {
  return std::fabs(value) < kLargest && (scale == Scale::kLinear || value > kSmallest);
}

AxisMap::AxisMap(const Axis& axis, const std::vector<double>& values, double padding, double from,
                 double to)
    : axis_(axis), from_(from), to_(to) {
  double low = HUGE_VAL, high = -HUGE_VAL;
  for (const double value : values) {
    if (!has_place(axis.scale, value)) continue;
    low = std::min(low, position(value));
    high = std::max(high, position(value));
  }
  if (low > high) low = 0, high = 1;
  const double size = std::max(std::fabs(low), std::fabs(high));
  double room = padding * (high - low);
  // One value alone, or as good as one: a range around it.
  const bool linear = axis.scale == Scale::kLinear;
  if (high - low <= 1e-9 * (linear ? size : 1)) room = linear && size > 0 ? 0.1 * size : 0.5;
  low_ = has_place(axis.scale, axis.min) ? position(axis.min) : low - room;
  high_ = has_place(axis.scale, axis.max) ? position(axis.max) : high + room;
  if (!(high_ - low_ > 1e-9 * std::fabs(low_))) high_ = low_ + std::max(1.0, std::fabs(low_));
}

double AxisMap::position(double value) const {
  if (axis_.scale == Scale::kLinear) return value;
  return axis_.scale == Scale::kLog2 ? std::log2(value) : std::log10(value);
}

double AxisMap::pixel(double value) const {
  const double at = axis_.scale != Scale::kLinear && value <= 0 ? low_ : position(value);
  return from_ + (to_ - from_) * (std::clamp(at, low_, high_) - low_) / (high_ - low_);
}

std::vector<Tick> AxisMap::ticks() const {
  if (!axis_.ticks.empty()) return axis_.ticks;
  if (axis_.scale == Scale::kLinear) return linear_ticks(low_, high_);
  // Within one decade round numbers say more than powers.
  if (axis_.scale == Scale::kLog10 && high_ - low_ < 1) {
    return linear_ticks(std::pow(10, low_), std::pow(10, high_));
  }
  return log_ticks();
}

std::vector<Tick> AxisMap::log_ticks() const {
  const double base = axis_.scale == Scale::kLog2 ? 2 : 10, slack = 1e-9;
  const double every = std::max(1.0, std::ceil((high_ - low_) / 9));
  const bool fine = base == 10 && high_ - low_ < 2;
  std::vector<Tick> out;
  for (double power = std::floor(low_ / every) * every; power <= high_ + slack; power += every) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor > 1 && !fine) break;
      const double value = factor * std::pow(base, power);
      const double at = position(value);
      if (at < low_ - slack || at > high_ + slack) continue;
      out.push_back({value, base == 2 ? format_figure(value) : format_short(value)});
    }
  }
  return out;
}

}  // namespace halo
