// A run folder (docs/formats/run-folder.md): what its STATUS says, and which of its stages are made
// of what its recipe, teacher and shards are now.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "halo/pipeline/provenance.h"

namespace halo {

// RUN/STATUS: `line`, and a line "stale: ..." where the folder has a model and figures that are not
// those of its stages.
void write_status(const fs::path& run, const std::string& line, bool model_is_stale,
                  bool figures_are_stale);
// Runs `work` with STATUS "running STAGE"; where it throws, STATUS is "stopped STAGE: why" or
// "failed STAGE: why". Another one must be written at its end.
void with_status(const fs::path& run, const std::string& stage, const std::function<void()>& work);

// What a signal that ends the process leaves: STATUS "running STAGE" becomes "stopped STAGE: by a
// signal".
void mark_stopped(const fs::path& run);

// The evaluation at the end, as far as it is one more stage: it reads RUN/model.
const Stage& evaluation();

// What the stages of a run were made of.
class RunRecords {
 public:
  RunRecords(fs::path run, Recipe recipe, std::span<const Stage> stages,
             Absent absent = Absent::kRefused);

  bool has(const Stage& stage) const;
  // What the stage's record differs in from a stage that would begin now; nothing where it has
  // none. Without `models` those that it starts from are left out, and need not be there.
  std::vector<Change> changes(const Stage& stage, bool models);
  // Writes the record of a stage that begins now.
  void write(const Stage& stage);
  // The first stage that is not finished or not of these inputs, and why; then the model, then the
  // figures. Nothing: model and figures are those of the recipe.
  struct Stale {
    std::string what;  // "distill", "model", "summary.json"
    std::string why;
  };
  std::optional<Stale> first_stale();
  // Whether RUN/model holds what the last stage left.
  bool model_is_current();
  // Versions of the program, other than this one, that made stages: "0.0.9 (transfer, align)".
  std::vector<std::string> other_versions() const;

 private:
  fs::path path(const Stage& stage) const;
  std::vector<fs::path> models(const Stage& stage) const;

  fs::path run_;
  Recipe recipe_;
  std::span<const Stage> stages_;
  Absent absent_;
  FileHashes hashes_;
};

// Whether the stage has something that a run would go on from: its result, or updates that it made.
bool has_progress(const Stage& stage, const fs::path& out);

// Why a model directory that is RUN/model is not that of its run's stages and recipe, a sentence
// with what to do; empty where it is, or is in no run folder.
std::string why_stale(const fs::path& model);

// `words` as a shell reads them.
std::string shell_line(const std::vector<std::string>& words);

}  // namespace halo
