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

// The members of an object of lengths in tokens ("needle", "decode"), ascending.
std::vector<std::pair<int64_t, JsonView>> by_length(const JsonView& object);

// Of the ascending lengths of needles at most `most` to show first: the longest within the training
// length, then some beyond it, the nearest and the longest among them; only one side: of that.
std::vector<int64_t> headline_lengths(const std::vector<int64_t>& lengths, double training_length,
                                      size_t most = 4);
// Headline figures, in HTML; nothing of a run without any.
std::string headline(const RunFiles& run);
void add_needles(Page& page, const RunFiles& run);
void add_cost(Page& page, const RunFiles& run);
void add_continuations(Page& page, const RunFiles& run);
void add_held_out(Page& page, const RunFiles& run);
void add_tasks(Page& page, const RunFiles& run);
void add_stages(Page& page, const RunFiles& run);
void add_scale(Page& page, const RunFiles& run);
void add_selection(Page& page, const RunFiles& run);
void add_alignment(Page& page, const RunFiles& run);
void add_training(Page& page, const RunFiles& run);
void add_provenance(Page& page, const RunFiles& run);

// Whether each layer of the student keeps attention; empty where that is not decided yet.
std::vector<bool> attention_layers(const RunFiles& run);

// At most `limit` points: means of as many runs of neighbours, or their largest values. A stretch
// without any number stays a gap.
enum class Pool { kMean, kMax };
std::vector<Point> thin(const std::vector<double>& x, const std::vector<double>& y, Pool pool,
                        size_t limit = 600);

}  // namespace halo
