#include "halo/train/checkpoint_save.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"

namespace halo {

namespace fs = std::filesystem;

CheckpointSave::CheckpointSave(const Checkpoints& checkpoints, TrainState state,
                               const ParameterStore& store, const SavedModel& model,
                               KeptValues values)
    : checkpoints_(checkpoints),
      state_(std::move(state)),
      store_(store),
      model_(model),
      values_(std::move(values)),
      path_(checkpoints.path(state_.step).string() + ".tmp") {}

// Where the first rank has everything it does everything, at once.
void CheckpointSave::do_part(int64_t part) {
  at::NoGradGuard no_grad;
  const bool is_first = store_.ranks().is_first();
  if (store_.keeps_all() && !is_first) return;
  if (is_first && part == 0) make_files();
  if (part == num_parts() / 2) write_values();
  if (is_first && part == num_parts() - 1) checkpoints_.put_in_place(*folder_, state_);
}

ParameterFile CheckpointSave::state_file(const char* name) const {
  return {path_ / name, store_.specs()};
}

void CheckpointSave::make_files() {
  require_space(path_.parent_path(), checkpoint_bytes(store_, model_));
  folder_.emplace(path_);
  std::error_code error;
  fs::remove_all(path_, error);
  if (!error) fs::create_directories(path_ / "state", error);
  if (error) throw_error("{}: cannot make the folder: {}", path_.string(), error.message());
  model_.write_side_files(path_);
  make_file(model_file_of(model_, store_, path_));
  for (const char* name : {kMastersFile, kMoment1File, kMoment2File}) make_file(state_file(name));
}

void CheckpointSave::write_values() const {
  const ParameterFile model = model_file_of(model_, store_, path_);
  write_kept(model, store_, model.dtype == DType::kF32 ? values_.master : values_.compute,
             store_.ranks().is_first() ? model_.rest : nullptr);
  crash_point("checkpoint.after_weights");
  write_kept(state_file(kMastersFile), store_, values_.master);
  write_kept(state_file(kMoment1File), store_, values_.moment1);
  write_kept(state_file(kMoment2File), store_, values_.moment2);
  crash_point("checkpoint.after_state");
}

ParameterFile model_file_of(const SavedModel& model, const ParameterStore& store,
                            const fs::path& folder) {
  return {folder / "model.safetensors", model.rest ? model.rest->specs() : store.specs(),
          model.dtype};
}

}  // namespace halo
