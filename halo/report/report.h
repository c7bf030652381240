// One self-contained HTML page of a run: inline SVG, no network. Reads only JSON.
#pragma once

#include <filesystem>

namespace halo {

// Reads RUN/summary.json and what the stages left (docs/formats/run-folder.md), writes
// RUN/report.html. A stage that has not run is left out; a damaged file is an Error.
void write_report(const std::filesystem::path& run);

}  // namespace halo
