// One self-contained HTML page of a run, or of two: inline SVG, no network. Reads only JSON and
// TOML.
#pragma once

#include <filesystem>
#include <string>

namespace halo {

// The page of what a run folder holds (docs/formats/run-folder.md), be the run finished, failed or
// still going. What has not run is left out; a damaged file is an Error.
std::string report_page(const std::filesystem::path& run);

// Two runs on one page: figures, layers, needles, gates, losses, and the settings that differ.
std::string comparison_page(const std::filesystem::path& a, const std::filesystem::path& b);

// Writes report_page to RUN/report.html.
void write_report(const std::filesystem::path& run);

}  // namespace halo
