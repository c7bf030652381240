#include "halo/report/page.h"

#include <fmt/format.h>

#include "halo/report/svg.h"

namespace halo {
namespace {

// Blue against vermilion and grey stay apart for every common colour blindness; line dashes and
// marker shapes say the same once more.
constexpr const char* kCss = R"(
:root { color-scheme: light dark; --page: #f4f5f7; --card: #ffffff; --text: #1d2329; --muted: #66707b;
  --grid: #e3e6ea; --teacher: #747e89; --student: #0b6cb0; --unscaled: #c9540a; --on-fill: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1d2125; --text: #e4e7ea;
  --muted: #99a3ad; --grid: #343a41; --teacher: #9aa4ae; --student: #5ab4ec; --unscaled: #f0954a;
  --on-fill: #0d1216; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0; }
h2 { font-size: 18px; margin: 0 0 2px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
p { margin: 0 0 10px; max-width: 860px; }
.lead, .note, .subtitle { color: var(--muted); }
.note { font-size: 13px; margin: 8px 0 0; }
nav { margin: 10px 0 14px; font-size: 14px; display: flex; flex-wrap: wrap; gap: 4px 16px; }
a { color: var(--student); text-decoration: none; }
a:hover { text-decoration: underline; }
section, .tile { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; }
section { padding: 16px 18px 18px; margin-top: 16px; }
.tiles { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 12px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 25px; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.tile small { display: block; color: var(--muted); font-size: 13px; line-height: 1.4; }
.tile .what { color: var(--text); font-size: 13px; }
.tile.needles { grid-column: span 2; }
.tile.needles table { margin: 0 0 2px; width: 100%; }
.tile.needles tr:nth-child(2) td { font-weight: 650; }
.tile.wide { grid-column: span 4; }
.banner { border: 1px solid var(--grid); border-left: 5px solid var(--student); border-radius: 8px;
  background: var(--card); padding: 10px 14px; margin: 0 0 14px; }
.banner.running { border-left-color: var(--teacher); }
.banner.failed { border-left-color: var(--unscaled); }
.banner p { margin: 4px 0 0; }
.banner pre { margin: 8px 0 0; }
.said { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 250px), 1fr));
  gap: 4px 22px; margin-top: 14px; padding-top: 10px; border-top: 1px solid var(--grid); }
.said p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.said .opening { grid-column: 1 / -1; font-weight: 600; max-width: none; }
.said small { color: var(--muted); font-size: 13px; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--least)), 1fr));
  gap: 18px 22px; margin-top: 12px; align-items: end; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; margin-top: 8px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 4px 16px 4px 0; text-align: right; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
th { font-weight: 600; color: var(--muted); }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; }
.gates :is(th, td):is(:nth-child(2), :nth-child(5)), .facts :is(th, td) { text-align: left; }
.gates td:nth-child(5), .facts td { white-space: normal; }
.gates td:nth-child(5) { min-width: 260px; }
.compared td:first-child { white-space: normal; min-width: 150px; }
.gates-of-two :is(th, td) { text-align: left; }
.gates-of-two td:last-child { white-space: normal; min-width: 220px; }
.beside .banner { margin: 0; }
.beside:has(.banner) { align-items: stretch; margin-bottom: 16px; }
.pass { color: var(--student); font-weight: 600; }
.fail { color: var(--unscaled); font-weight: 700; }
pre, code { font: 12.5px/1.5 ui-monospace, monospace; }
pre { background: var(--page); border: 1px solid var(--grid); border-radius: 6px; padding: 10px 12px;
  margin: 8px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
td code { overflow-wrap: anywhere; }
summary { cursor: pointer; margin-top: 10px; }
@media (max-width: 760px) { .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .tile.wide { grid-column: span 2; } }
@media print { section, .tile { break-inside: avoid; } }
)";

}  // namespace

Page::Page(std::string title, std::string subtitle)
    : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

void Page::add_section(std::string id, std::string heading, std::string_view lead,
                       std::string body) {
  std::string html = fmt::format("<section id=\"{}\"><h2>{}</h2>\n", id, escape_html(heading));
  if (!lead.empty()) html += "<p class=\"lead\">" + escape_html(lead) + "</p>\n";
  sections_.push_back({std::move(id), std::move(heading), html + body + "</section>\n"});
}

std::string Page::html() const {
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{}</title>\n<style>{}{}</style></head>\n<body><main>\n<h1>{}</h1>\n"
      "<div class=\"subtitle\">{}</div>\n<nav>",
      escape_html(title_), kCss, chart_css(), escape_html(title_), escape_html(subtitle_));
  for (const Section& section : sections_) {
    out += fmt::format("<a href=\"#{}\">{}</a>", section.id, escape_html(section.heading));
  }
  out += "</nav>\n" + summary_;
  for (const Section& section : sections_) out += section.html;
  return out + "</main></body></html>\n";
}

std::string html_table(const std::vector<std::string>& header,
                       const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<div class=\"scroll\"><table><tr>";
  for (const std::string& cell : header) out += "<th>" + cell + "</th>";
  out += "</tr>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += "<td>" + cell + "</td>";
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string beside(const std::vector<std::string>& figures, int columns) {
  std::string out =
      fmt::format("<div class=\"beside\" style=\"--least:{}px\">\n", columns == 2 ? 440 : 300);
  for (const std::string& figure : figures) out += figure;
  return out + "</div>\n";
}

std::string note(std::string_view text) {
  return "<p class=\"note\">" + escape_html(text) + "</p>\n";
}

}  // namespace halo
