// The sections of the page, each from the files of a run; one without its files adds nothing.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "halo/report/page.h"
#include "halo/report/run_files.h"
#include "halo/report/svg.h"

namespace halo {

// One look a model everywhere.
struct ModelLook {
  std::string name, color;
  Marker marker;
  bool dashed = false;
  double shift = 0;
};
ModelLook teacher_look();
ModelLook student_look();
ModelLook unscaled_look();

// A "needle" object by length, ascending.
std::vector<std::pair<int64_t, JsonView>> needles_by_length(const JsonView& needle);

// Headline figures, in HTML.
std::string headline(const RunFiles& run);
void add_needles(Page& page, const RunFiles& run);
void add_held_out(Page& page, const RunFiles& run);
void add_stages(Page& page, const RunFiles& run);
void add_scale(Page& page, const RunFiles& run);
void add_selection(Page& page, const RunFiles& run);
void add_alignment(Page& page, const RunFiles& run);
void add_training(Page& page, const RunFiles& run);
void add_provenance(Page& page, const RunFiles& run);

// Whether each layer of the student keeps attention; empty where summary.json does not say.
std::vector<bool> attention_layers(const RunFiles& run);

// At most `limit` points: means of as many runs of neighbours, or their largest values. A stretch
// without any number stays a gap.
enum class Pool { kMean, kMax };
std::vector<Point> thin(const std::vector<double>& x, const std::vector<double>& y, Pool pool,
                        size_t limit = 600);

}  // namespace halo
