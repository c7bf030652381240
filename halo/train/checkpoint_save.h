// One checkpoint on its way to the disk, in parts.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "halo/base/dtype.h"
#include "halo/base/files.h"
#include "halo/train/checkpoint.h"
#include "halo/train/kept_values.h"
#include "halo/train/parameter_file.h"

namespace halo {

// Every rank makes one and does every part of it, each when all have done the part before. A part
// calls no other rank and no device, so any thread may do it. What fails leaves step-N.tmp to this
// object, with which it goes.
class CheckpointSave {
 public:
  // All but the values must outlive this.
  CheckpointSave(const Checkpoints& checkpoints, TrainState state, const ParameterStore& store,
                 const SavedModel& model, KeptValues values);

  int64_t step() const { return state_.step; }
  int64_t num_parts() const { return store_.keeps_all() ? 1 : 3; }
  void do_part(int64_t part);

 private:
  void make_files();
  void write_values() const;
  ParameterFile state_file(const char* name) const;

  const Checkpoints& checkpoints_;
  const TrainState state_;
  const ParameterStore& store_;
  const SavedModel& model_;
  const KeptValues values_;
  const std::filesystem::path path_;     // step-N.tmp
  std::optional<TemporaryPath> folder_;  // the first rank's
};

// model.safetensors of a checkpoint in `folder`.
ParameterFile model_file_of(const SavedModel& model, const ParameterStore& store,
                            const std::filesystem::path& folder);

}  // namespace halo
