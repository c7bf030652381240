// What two runs reached: figures, layers, needles by length.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "halo/report/comparison.h"
#include "halo/report/run_state.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// Rows of figures: of both runs, and what the second has more.
class Figures {
 public:
  using Format = std::function<std::string(double)>;

  // `equal_too`: also rows in which the runs do not differ.
  Figures(Rows& rows, bool equal_too) : rows_(rows), equal_too_(equal_too) {}

  void add(const std::string& name, double a, double b, const Format& format) const {
    if (!std::isfinite(a) && !std::isfinite(b)) return;
    const double difference = b - a;
    if (!equal_too_ && !(difference != 0 && std::isfinite(difference))) return;
    std::string shown = "–";
    if (std::isfinite(difference)) {
      shown = difference == 0 ? "0" : fmt::format("{:+.3g}", difference);
    }
    rows_.push_back({name, format(a), format(b), std::move(shown)});
  }

 private:
  Rows& rows_;
  const bool equal_too_;
};

std::set<int64_t> lengths_of(const JsonView& a, const JsonView& b) {
  std::set<int64_t> out;
  for (const JsonView& view : {a, b}) {
    for (const auto& [length, figures] : by_length(view)) out.insert(length);
  }
  return out;
}

double at_length(const JsonView& lengths, int64_t length, const char* key) {
  return lengths.object(std::to_string(length)).number(key);
}

void add_model(const Figures& figures, const std::string& who, const JsonView& a,
               const JsonView& b) {
  const auto fixed = [](int decimals) {
    return [decimals](double value) { return format_fixed(value, decimals); };
  };
  figures.add(who + ": held-out loss (nats a token)", a.number("loss"), b.number("loss"), fixed(4));
  figures.add(who + ": bits a byte", a.number("bits_per_byte"), b.number("bits_per_byte"),
              fixed(4));
  figures.add(who + ": KL from its teacher (nats a token)", a.number("kl"), b.number("kl"),
              fixed(4));
  for (const auto& [key, what] : {std::pair{"needle", "needles found"},
                                  {"needle_unscaled", "needles found without logit scale"}}) {
    const JsonView in_a = a.object(key), in_b = b.object(key);
    for (const int64_t length : lengths_of(in_a, in_b)) {
      figures.add(fmt::format("{}: {} at {} tokens", who, what, format_figure(double(length))),
                  at_length(in_a, length, "accuracy"), at_length(in_b, length, "accuracy"),
                  fixed(3));
    }
  }
  figures.add(who + ": keys and values a token (bytes)", a.number("kv_bytes_per_token"),
              b.number("kv_bytes_per_token"), format_figure);
  figures.add(who + ": states of a sequence (bytes)", a.number("state_bytes"),
              b.number("state_bytes"), format_figure);
  for (const int64_t length : lengths_of(a.object("decode"), b.object("decode"))) {
    figures.add(fmt::format("{}: one more token after {} (ms)", who, format_figure(double(length))),
                1e3 * at_length(a.object("decode"), length, "seconds"),
                1e3 * at_length(b.object("decode"), length, "seconds"), format_figure);
  }
}

// The layers that keep attention, of both, under the names of the runs.
std::string strips(const RunPair& runs) {
  std::string out;
  for (const auto& [name, run] : {std::pair{&runs.name_a, &runs.a}, {&runs.name_b, &runs.b}}) {
    const std::vector<bool> layers = attention_layers(*run);
    if (layers.empty()) continue;
    out += fmt::format("<p class=\"note\">{}: {} of {} layers keep attention</p>{}",
                       escape_html(*name), std::ranges::count(layers, true), layers.size(),
                       layer_strip(layers));
  }
  return out;
}

Series needle_series(const std::string& name, const JsonView& needle, const ModelLook& look) {
  Series series{name, look.color, {}, look.marker, true, look.dashed, look.shift};
  for (const auto& [length, scores] : by_length(needle)) {
    series.points.push_back(
        {double(length), scores.number("accuracy"), kNoNumber, scores.number("stderr"),
         fmt::format("{}, {} tokens: {}", name, length,
                     format_estimate(scores.number("accuracy"), scores.number("stderr"), 3))});
  }
  return series;
}

}  // namespace

void compare_figures(Page& page, const RunPair& runs) {
  const JsonView a = runs.a.summary.view(), b = runs.b.summary.view();
  Rows rows;
  const Figures all(rows, /*equal_too=*/true), different(rows, /*equal_too=*/false);
  add_model(all, "student", a.object("student"), b.object("student"));
  // Most pairs have one teacher.
  add_model(different, "teacher", a.object("teacher"), b.object("teacher"));
  different.add("training length (tokens)", a.number("training_length"),
                b.number("training_length"), format_figure);
  all.add("time of the conversion (s)", runs.a.seconds, runs.b.seconds, format_figure);
  std::string body = strips(runs);
  if (!rows.empty()) {
    body += "<div class=\"compared\">" +
            html_table({"Figure", escape_html(runs.name_a), escape_html(runs.name_b), "difference"},
                       rows) +
            "</div>";
  }
  if (body.empty()) return;
  page.add_section("figures", "Figures",
                   "The difference is what the second run has more. Errors are on the pages of the "
                   "runs: a difference smaller than they are says nothing. Of the teachers only "
                   "what differs is shown.",
                   std::move(body));
}

void compare_needles(Page& page, const RunPair& runs) {
  const JsonView a = runs.a.summary.view(), b = runs.b.summary.view();
  const JsonView teacher_a = a.object("teacher").object("needle"),
                 teacher_b = b.object("teacher").object("needle");
  LineChart chart;
  chart.title = "Needle accuracy by length";
  chart.x = {"prompt and answer (tokens; log₂ axis)", Scale::kLog2};
  chart.place = Place::kSection;
  chart.height = 330;
  const ModelLook first = student_look(), second = unscaled_look(), teacher = teacher_look();
  const auto add = [&](const std::string& name, const JsonView& needle, const ModelLook& look) {
    if (needle) chart.series.push_back(needle_series(name, needle, look));
  };
  add("student of " + runs.name_a, a.object("student").object("needle"), first);
  add("student of " + runs.name_b, b.object("student").object("needle"), second);
  const bool same = teacher_a && teacher_b && teacher_a.members() == teacher_b.members();
  add(same ? "teacher" : "teacher of " + runs.name_a, teacher_a, teacher);
  if (!same) add("teacher of " + runs.name_b, teacher_b, teacher);
  if (chart.series.empty()) return;
  std::set<int64_t> lengths;
  double lowest = 1;
  for (const Series& series : chart.series) {
    for (const Point& p : series.points) {
      lengths.insert(static_cast<int64_t>(p.x));
      lowest = std::min(lowest, p.y - (std::isfinite(p.y_error) ? p.y_error : 0));
    }
  }
  for (const int64_t length : lengths) {
    chart.x.ticks.push_back(
        {double(length), format_figure(double(length)), format_length(double(length))});
  }
  chart.y = share_axis("share of needles found", lowest);
  if (a.number("training_length") == b.number("training_length")) {
    chart.vertical = {{a.number("training_length"), "training length"}};
  }
  page.add_section("needles", "Needles", "Error bars are one standard error.", line_chart(chart));
}

}  // namespace halo
