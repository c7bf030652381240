#include "halo/report/frame.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace halo {

std::string_view chart_css() {
  return R"(
figure { margin: 0; min-width: 0; container-type: inline-size; }
figure.wide svg.middle, figure svg.narrow { display: none; }
figure svg.middle { max-width: 680px; }
figure.narrow svg.narrow { display: block; max-width: 460px; }
@container (max-width: 800px) { figure.wide svg.wide { display: none; }
  figure.wide svg.middle { display: block; } }
@container (max-width: 430px) { figure svg.middle, figure.wide svg.middle { display: none; }
  figure svg.narrow { display: block; } }
figcaption { font-weight: 600; font-size: 14px; margin: 0 0 2px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 11px system-ui, sans-serif; fill: var(--muted); font-variant-numeric: tabular-nums; }
svg text.end { text-anchor: end; }
svg text.mid { text-anchor: middle; }
svg text.axis { text-anchor: middle; fill: var(--text); }
svg text.guide { fill: var(--text); paint-order: stroke; stroke: var(--card); stroke-width: 4px;
  stroke-linejoin: round; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .base { stroke: var(--muted); stroke-width: 1; }
svg .guideline { stroke: currentColor; stroke-width: 1.2; stroke-dasharray: 5 3; }
svg .line { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round;
  stroke-linecap: round; }
svg .dashed { stroke-dasharray: 6 4; }
svg .error { stroke: currentColor; stroke-width: 1.3; fill: none; }
svg .mark { fill: currentColor; stroke: var(--card); stroke-width: 1; }
svg .bar { fill: currentColor; }
svg .cell { fill: var(--student); stroke: var(--grid); }
svg text.pale { text-anchor: middle; font-size: 12px; fill: var(--text); }
svg text.strong { text-anchor: middle; font-size: 12px; fill: var(--on-fill); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 12px; color: var(--text);
  min-height: 18px; }
.legend span { display: inline-flex; align-items: center; gap: 5px; }
.legend svg { width: 26px; height: 12px; flex: none; }
.strip { display: flex; flex-wrap: wrap; gap: 3px; margin-top: 6px; }
.strip span { min-width: 27px; height: 27px; border: 1px solid var(--grid); border-radius: 4px;
  font-size: 12px; line-height: 25px; text-align: center; font-variant-numeric: tabular-nums; }
.strip .kept { background: var(--student); border-color: var(--student); color: var(--on-fill); }
)";
}

std::string figure(const std::string& title, const std::string& legend, Place place,
                   const std::function<Drawing(double width)>& draw) {
  struct Form {
    const char* name;
    double width;
  };
  static constexpr Form kForms[] = {{"wide", 1060}, {"middle", 530}, {"narrow", 340}};
  const size_t first = place == Place::kSection ? 0 : place == Place::kHalf ? 1 : 2;
  std::string out = fmt::format("<figure class=\"{}\"><figcaption>{}</figcaption>",
                                kForms[first].name, escape_html(title));
  if (!legend.empty()) out += "<div class=\"legend\">" + legend + "</div>";
  for (size_t i = first; i < std::size(kForms); ++i) {
    const Drawing drawing = draw(kForms[i].width);
    out += fmt::format(
        "<svg class=\"{}\" viewBox=\"0 0 {:g} {:g}\" role=\"img\" aria-label=\"{}\">{}</svg>\n",
        kForms[i].name, kForms[i].width, drawing.height, escape_html(title), drawing.svg);
  }
  return out + "</figure>\n";
}

Box plot_box(double width, double height, const AxisMap& y) {
  double widest = 0;
  for (const Tick& tick : y.ticks()) widest = std::max(widest, text_width(tick.label));
  // The axis' own label stands upright at the edge.
  const double left = std::max(40.0, 20 + widest + 6);
  return {left, width - 14, kRoomAbove, height - kRoomBelow, width};
}

double text_width(std::string_view text) {
  // A digit is 0.56 of 11 px wide; letters are on average less, capitals more.
  const auto is_first_byte = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
  return 6.1 * double(std::ranges::count_if(text, is_first_byte));
}

std::string text_inside(const Box& box, double x, double y, std::string_view css_class,
                        std::string_view text) {
  const double half = text_width(text) / 2;
  return svg_text(std::max(half, std::min(x, box.width - half)), y, css_class, text);
}

std::string labels_x(const Box& box, const std::vector<PlacedTick>& ticks, double y) {
  constexpr double kGap = 8;
  const auto label = [](const Tick& tick, bool in_short) -> const std::string& {
    return in_short && !tick.short_label.empty() ? tick.short_label : tick.label;
  };
  const auto fits = [&](size_t every, bool in_short) {
    double end = -HUGE_VAL;
    for (size_t i = 0; i < ticks.size(); i += every) {
      const double half = text_width(label(ticks[i].tick, in_short)) / 2;
      const double x = std::max(half, std::min(ticks[i].x, box.width - half));
      if (x - half < end) return false;
      end = x + half + kGap;
    }
    return true;
  };
  bool in_short = false;
  size_t every = 1;
  if (!fits(1, false)) in_short = true;
  while (every < ticks.size() && !fits(every, in_short)) ++every;
  std::string out;
  for (size_t i = 0; i < ticks.size(); i += every) {
    out += text_inside(box, ticks[i].x, y, "mid", label(ticks[i].tick, in_short));
  }
  return out;
}

std::string svg_text(double x, double y, std::string_view css_class, std::string_view text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\">{}</text>", x, y, css_class,
                     escape_html(text));
}

std::string grid_y(const Box& box, const AxisMap& y, const std::string& label) {
  std::string out;
  for (const Tick& tick : y.ticks()) {
    const double at = y.pixel(tick.value);
    out += fmt::format(
        "<line class=\"grid\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", box.left,
        box.right, at, at);
    out += svg_text(box.left - 6, at + 4, "end", tick.label);
  }
  const double middle = (box.top + box.bottom) / 2;
  return out + fmt::format(
                   "<text class=\"axis\" transform=\"translate(11 {:.1f}) rotate(-90)\">{}</text>",
                   middle, escape_html(label));
}

std::string ticks_x(const Box& box, const AxisMap& x, const std::string& label) {
  std::string out =
      fmt::format("<line class=\"base\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>",
                  box.left, box.right, box.bottom, box.bottom);
  const std::vector<Tick> ticks = x.ticks();
  std::vector<PlacedTick> placed;
  for (const Tick& tick : ticks) {
    const double at = x.pixel(tick.value);
    out += fmt::format(
        "<line class=\"base\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", at, at,
        box.bottom, box.bottom + 4);
    placed.push_back({at, tick});
  }
  return out + labels_x(box, placed, box.bottom + 16) +
         text_inside(box, (box.left + box.right) / 2, box.bottom + 36, "axis", label);
}

std::string guide_y(const Box& box, const AxisMap& y, const Guide& guide) {
  if (!std::isfinite(guide.value)) return "";
  return fmt::format(
      "<g style=\"color:{0}\"><line class=\"guideline\" x1=\"{1:.1f}\" x2=\"{2:.1f}\" "
      "y1=\"{3:.1f}\" "
      "y2=\"{3:.1f}\"/></g>",
      guide.color, box.left, box.right, y.pixel(guide.value));
}

std::string guides_y(const Box& box, const AxisMap& y, const std::vector<Guide>& guides) {
  std::string out;
  std::vector<double> taken;  // heights of labels
  for (const Guide& guide : guides) {
    if (!std::isfinite(guide.value)) continue;
    const double at = y.pixel(guide.value);
    out += guide_y(box, y, guide);
    // Above its line, or below it where the frame or another label is in the way.
    const double above = at - 5, below = at + 13;
    const bool is_taken =
        std::ranges::any_of(taken, [&](double height) { return std::fabs(height - above) < 13; });
    taken.push_back(at < box.top + 14 || is_taken ? below : above);
    out += svg_text(box.right - 4, taken.back(), "guide end", guide.label);
  }
  return out;
}

std::string guides_x(const Box& box, const AxisMap& x, const std::vector<Guide>& guides) {
  std::string out;
  for (const Guide& guide : guides) {
    if (!std::isfinite(guide.value)) continue;
    const double at = x.pixel(guide.value);
    out += fmt::format(
        "<g style=\"color:{}\"><line class=\"guideline\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" "
        "y2=\"{:.1f}\"/></g>",
        guide.color, at, at, box.top, box.bottom);
    out += text_inside(box, at, box.top - 4, "guide mid", guide.label);
  }
  return out;
}

std::string error_bar(double at, double low, double high, bool upright) {
  constexpr double kCap = 3.5;
  const char* form =
      upright ? "M{0:.1f} {1:.1f}H{2:.1f}M{3:.1f} {1:.1f}V{4:.1f}M{0:.1f} {4:.1f}H{2:.1f}"
              : "M{1:.1f} {0:.1f}V{2:.1f}M{1:.1f} {3:.1f}H{4:.1f}M{4:.1f} {0:.1f}V{2:.1f}";
  return fmt::format("<path class=\"error\" d=\"{}\"/>",
                     fmt::format(fmt::runtime(form), at - kCap, low, at + kCap, at, high));
}

std::string marker_shape(Marker marker, double x, double y, double r) {
  switch (marker) {
    case Marker::kNone:
      return "";
    case Marker::kCircle:
      return fmt::format("<circle class=\"mark\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:g}\"/>", x, y,
                         r);
    case Marker::kSquare:
      return fmt::format(
          "<rect class=\"mark\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:g}\" height=\"{:g}\"/>", x - r,
          y - r, 2 * r, 2 * r);
    case Marker::kTriangle:
      return fmt::format("<path class=\"mark\" d=\"M{:.1f} {:.1f}l{:g} {:g}h{:g}z\"/>", x,
                         y - 1.2 * r, 1.2 * r, 2.2 * r, -2.4 * r);
  }
  return "";
}

std::string tooltip(const std::string& note) {
  return note.empty() ? "" : "<title>" + escape_html(note) + "</title>";
}

std::string ramp_color(size_t i, size_t n) {
  struct Color {
    double red, green, blue;
  };
  // Middle lightness, so that all can be seen on white and on black; blue to yellow-brown, which
  // colour-blind readers tell apart.
  static constexpr Color kStops[] = {{62, 84, 168}, {38, 140, 152}, {92, 168, 92}, {206, 152, 34}};
  constexpr size_t kLast = std::size(kStops) - 1;
  const double at = n < 2 ? 0 : double(kLast) * double(i) / double(n - 1);
  const size_t stop = std::min(static_cast<size_t>(at), kLast - 1);
  const double share = at - double(stop);
  const Color &a = kStops[stop], &b = kStops[stop + 1];
  const auto mix = [&](double from, double to) {
    return static_cast<int>(std::lround(from + share * (to - from)));
  };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(a.red, b.red), mix(a.green, b.green),
                     mix(a.blue, b.blue));
}

}  // namespace halo
