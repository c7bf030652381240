// The top of the page: what was kept and what was lost, in figures.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "halo/base/check.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

std::string tile(const std::string& what, const std::string& figure, const std::string& more) {
  return fmt::format(
      "<div class=\"tile\"><span class=\"what\">{}</span><b>{}</b><small>{}</small></div>\n", what,
      figure, more);
}

std::string loss_tile(const JsonView& teacher, const JsonView& student) {
  if (!student) {
    return tile("Held-out loss of the teacher", format_fixed(teacher.number("loss"), 3),
                "nats a token");
  }
  const double difference = student.number("loss") - teacher.number("loss");
  std::string more = "nats a token; teacher " + format_fixed(teacher.number("loss"), 3);
  if (std::isfinite(difference)) more += fmt::format(" ({:+.3f})", difference);
  if (student.has("bits_per_byte")) {
    more += fmt::format("<br>{} bits a byte; teacher {}",
                        format_fixed(student.number("bits_per_byte"), 3),
                        format_fixed(teacher.number("bits_per_byte"), 3));
  }
  return tile("Held-out loss of the student", format_fixed(student.number("loss"), 3), more);
}

std::string kl_tile(const JsonView& student) {
  std::string more = "nats a token";
  if (std::isfinite(student.number("kl_stderr"))) {
    more = fmt::format("± {:.3f} nats a token", student.number("kl_stderr"));
  }
  if (student.has("n")) {
    more += fmt::format("<br>{} tokens, {} documents", format_figure(student.number("n")),
                        format_figure(student.number("clusters")));
  }
  return tile("KL of the student from the teacher", format_fixed(student.number("kl"), 3), more);
}

std::vector<int64_t> lengths_of(const JsonView& needle) {
  std::vector<int64_t> out;
  for (const auto& [length, scores] : by_length(needle)) out.push_back(length);
  return out;
}

std::string needle_tile(const RunFiles& run) {
  const JsonView summary = run.summary.view(), teacher = summary.object("teacher"),
                 student = summary.object("student");
  const double training_length = summary.number("training_length");
  const std::vector<std::pair<std::string, JsonView>> models = {
      {"student", student.object("needle")},
      {"student, no logit scale", student.object("needle_unscaled")},
      {"teacher", teacher.object("needle")}};
  const JsonView any = student.has("needle") ? models[0].second : models[2].second;
  const std::vector<int64_t> lengths = headline_lengths(lengths_of(any), training_length);
  if (lengths.empty()) return "";
  std::vector<std::string> header = {"Needles found at"};
  for (const int64_t length : lengths) {
    header.push_back(std::isfinite(training_length)
                         ? fmt::format("{:.3g}×", double(length) / training_length)
                         : format_figure(double(length)));
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, needle] : models) {
    if (!needle) continue;
    std::vector<std::string> row = {name};
    for (const int64_t length : lengths) {
      row.push_back(format_fixed(needle.object(std::to_string(length)).number("accuracy"), 2));
    }
    rows.push_back(std::move(row));
  }
  return "<div class=\"tile needles\">" + html_table(header, rows) +
         (std::isfinite(training_length)
              ? fmt::format("<small>1× = {} tokens, the longest sequence trained on</small>",
                            format_figure(training_length))
              : "") +
         "</div>\n";
}

// attn_logits_scaling as config.json has it.
std::string logit_scale_text(const RunFiles& run) {
  const JsonView student = run.summary.view().object("student");
  if (!student.has("attn_logits_scaling")) return "";
  const json::value& scale = student.members().at("attn_logits_scaling");
  if (scale.is_number())
    return "; constant logit scale " + format_figure(scale.to_number<double>());
  const std::string text = student.text("attn_logits_scaling");
  return "; logit scale " + escape_html(text.starts_with("hype ") ? "a = " + text.substr(5) : text);
}

std::string mixer_tile(const RunFiles& run) {
  const std::vector<bool> attention = attention_layers(run);
  if (attention.empty()) return "";
  const auto kept = std::ranges::count(attention, true);
  return fmt::format(
      "<div class=\"tile wide\"><span class=\"what\">Layers: {} of {} keep attention (filled), the "
      "others are lightning attention, a linear recurrence{}</span>{}</div>\n",
      kept, attention.size(), logit_scale_text(run), layer_strip(attention));
}

}  // namespace

ModelLook teacher_look() {
  return {"teacher", "var(--teacher)", Marker::kSquare, false, -4};
}

ModelLook student_look() {
  return {"student, fitted logit scale", "var(--student)", Marker::kCircle, false, 0};
}

ModelLook unscaled_look() {
  return {"student, no logit scale", "var(--unscaled)", Marker::kTriangle, true, 4};
}

std::vector<std::pair<int64_t, JsonView>> by_length(const JsonView& object) {
  std::vector<std::pair<int64_t, JsonView>> out;
  if (!object) return out;
  for (const auto& [key, value] : object.members()) {
    int64_t length = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), length);
    if (error != std::errc() || end != key.data() + key.size() || length <= 0) {
      throw_error("{}: '{}' is not a length in tokens", object.file(), std::string(key));
    }
    out.emplace_back(length, object.object(key));
  }
  std::ranges::sort(out, {}, &std::pair<int64_t, JsonView>::first);
  return out;
}

std::vector<int64_t> headline_lengths(const std::vector<int64_t>& lengths, double training_length,
                                      size_t most) {
  std::vector<int64_t> within, beyond, out;
  for (const int64_t length : lengths) {
    (double(length) > training_length ? beyond : within).push_back(length);
  }
  const size_t room = std::max<size_t>(most, 2);
  const size_t first = beyond.empty() ? room : 1;  // the longest of those within
  out.assign(within.end() - static_cast<std::ptrdiff_t>(std::min(first, within.size())),
             within.end());
  const size_t count = std::min(beyond.size(), room - std::min(room, out.size()));
  for (size_t i = 0; i < count; ++i) {
    const size_t last = beyond.size() - 1;
    out.push_back(beyond[count == 1 ? last : (i * last + (count - 1) / 2) / (count - 1)]);
  }
  return out;
}

std::vector<bool> attention_layers(const RunFiles& run) {
  std::vector<bool> out;
  for (const std::string& mixer : run.summary.view().object("student").texts("mixer_types")) {
    out.push_back(mixer == "attn");
  }
  if (!out.empty() || !run.selection.view()) return out;
  // No evaluation yet: as selected, of as many layers as were aligned.
  for (const StageFiles& stage : run.stages) {
    const size_t layers = stage.result.view().numbers("explained_variance").size();
    if (layers > 0) out.assign(layers, false);
  }
  for (const double layer : run.selection.view().numbers("layers")) {
    if (layer >= 0 && layer < double(out.size())) out[static_cast<size_t>(layer)] = true;
  }
  return out;
}

std::string headline(const RunFiles& run) {
  const JsonView teacher = run.summary.view().object("teacher"),
                 student = run.summary.view().object("student");
  std::string tiles = teacher ? loss_tile(teacher, student) : "";
  if (student) tiles += kl_tile(student);
  tiles += needle_tile(run) + mixer_tile(run);
  return tiles.empty() ? "" : "<div class=\"tiles\">\n" + tiles + "</div>\n";
}

}  // namespace halo
