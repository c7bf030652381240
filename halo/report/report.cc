#include "halo/report/report.h"

#include "halo/base/files.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

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

void write_report(const std::filesystem::path& folder) {
  const RunFiles run = read_run(folder);
  const std::filesystem::path name = std::filesystem::absolute(folder).lexically_normal();
  Page page("Conversion " + (name.has_filename() ? name : name.parent_path()).filename().string(),
            subtitle(run.environment.view()));
  page.set_summary(headline(run));
  add_needles(page, run);
  add_held_out(page, run);
  add_stages(page, run);
  add_selection(page, run);
  add_scale(page, run);
  add_alignment(page, run);
  add_training(page, run);
  add_provenance(page, run);
  write_file(folder / "report.html", page.html());
}

}  // namespace halo
