#include "halo/report/report.h"

#include "halo/base/files.h"
#include "halo/report/comparison.h"
#include "halo/report/run_state.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

std::string subtitle(const JsonView& environment) {
  std::string out;
  for (const auto& [prefix, key] :
       {std::pair{"teacher ", "teacher"}, {"on ", "device"}, {"halo ", "version"}}) {
    const std::string text = environment.text(key);
    if (!text.empty()) out += (out.empty() ? "" : " · ") + (prefix + text);
  }
  return out;
}

}  // namespace

std::string report_page(const fs::path& folder) {
  const RunFiles run = read_run(folder);
  Page page("Conversion " + run.name(), subtitle(run.environment.view()));
  page.set_summary(banner(run) + headline(run));
  const bool finished = run_state(run).kind == RunState::Kind::kDone;
  // Of a run that is not done people want to know how it goes.
  if (!finished) {
    add_stages(page, run);
    add_training(page, run);
  }
  add_needles(page, run);
  add_cost(page, run);
  add_continuations(page, run);
  add_tasks(page, run);
  add_held_out(page, run);
  if (finished) add_stages(page, run);
  add_selection(page, run);
  add_scale(page, run);
  add_alignment(page, run);
  if (finished) add_training(page, run);
  add_provenance(page, run);
  return page.html();
}

std::string comparison_page(const fs::path& a, const fs::path& b) {
  RunPair runs{read_run(a), read_run(b), "", ""};
  const bool same_name = runs.a.name() == runs.b.name();
  runs.name_a = same_name ? a.string() : runs.a.name();
  runs.name_b = same_name ? b.string() : runs.b.name();
  Page page(runs.name_a + " and " + runs.name_b, "two conversions beside each other");
  page.set_summary(beside({short_banner(runs.a, runs.name_a), short_banner(runs.b, runs.name_b)}));
  compare_figures(page, runs);
  compare_needles(page, runs);
  compare_tasks(page, runs);
  compare_stages(page, runs);
  compare_training(page, runs);
  compare_settings(page, runs);
  return page.html();
}

void write_report(const fs::path& folder) {
  write_file(folder / "report.html", report_page(folder));
}

}  // namespace halo
