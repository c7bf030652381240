// Checkpoints: DIRECTORY/step-N/ is a Hugging Face directory plus
//   state/{masters,moment1,moment2}.safetensors   fp32, by parameter name
//   state/manifest.json                           written last; without it nothing is valid
// (docs/formats/checkpoint.md). A checkpoint is written as step-N.tmp/, synced and renamed, so a
// crash at any moment leaves the earlier ones whole and at most a *.tmp folder behind.
//
// With several ranks, a rank writes and reads what its store keeps, of the model too: the files are
// those of one rank, so any number of ranks can go on from them.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "halo/base/files.h"
#include "halo/base/json.h"
#include "halo/model/parameters.h"
#include "halo/runtime/communicator.h"

namespace halo {

// What the manifest says beside its list of files.
struct TrainState {
  std::string stage;
  int64_t step = 0;    // updates done; also the loader's cursor, whose batches are f(seed, step)
  int64_t tokens = 0;  // read so far
  uint64_t seed = 0;
  std::string data_id;
  json::object recipe;
  int64_t threads = 0;
  int64_t ranks = 1, context_ranks = 1;
  std::string device;   // "cpu", "cuda"
  std::string kernels;  // "fast", "reference"
  std::string compute;  // "float32", "bfloat16"; empty: written before this was recorded
};

// What a checkpoint's model is beside what is trained.
struct SavedModel {
  DType dtype = DType::kF32;  // of model.safetensors: F32, or the store's compute type
  // All parameters of the model, in the order of the file and its type, on the CPU; those that are
  // not trained are taken from here. None: what is trained is all.
  const ParameterStore* rest = nullptr;
  // Writes config.json and the like; called by the first rank, on any thread.
  std::function<void(const std::filesystem::path& directory)> write_side_files;
};

inline constexpr const char* kMastersFile = "state/masters.safetensors";
inline constexpr const char* kMoment1File = "state/moment1.safetensors";
inline constexpr const char* kMoment2File = "state/moment2.safetensors";

class Checkpoints {
 public:
  // Creates `directory`. Error where that cannot be.
  Checkpoints(std::filesystem::path directory, int64_t keep, Communicator& ranks = one_rank());

  // Removes what a crash left: *.tmp folders and files.
  void clean() const;
  // Step numbers of all step-N folders, newest first, valid or not.
  std::vector<int64_t> steps() const;
  std::filesystem::path path(int64_t step) const;

  // Manifest and sizes of one checkpoint, and with `hashes` every byte; an Error says what is
  // wrong.
  TrainState verify(int64_t step, bool hashes) const;
  // What follows is called by every rank; it is the first one that looks, warns and cleans up.

  // The newest checkpoint that verifies with hashes, loaded into the store's master and moments
  // (compute refreshed). Those that do not are reported to `warn` and passed over. Nothing there:
  // nullopt; something there and none valid: Error.
  std::optional<TrainState> load_newest(ParameterStore& store,
                                        const std::function<void(const std::string&)>& warn) const;
  // Reads one checkpoint's arenas into the store. It must verify.
  void load(int64_t step, ParameterStore& store) const;

  // Writes, verifies by reading everything back, then removes all but the newest `keep`.
  void save(const TrainState& state, ParameterStore& store, const SavedModel& model) const;

  // The end of a save, the first rank's (CheckpointSave): `folder` has all files but the manifest.
  void put_in_place(TemporaryPath& folder, const TrainState& state) const;

 private:
  std::optional<TrainState> find_newest(const std::function<void(const std::string&)>& warn) const;
  void remove_old() const;

  std::filesystem::path directory_;
  int64_t keep_;
  Communicator& ranks_;
};

// Bytes a checkpoint of this store takes.
uint64_t checkpoint_bytes(const ParameterStore& store, const SavedModel& model);
// Error "needs X, has Y" where the file system of `directory` has less than `bytes` free.
void require_space(const std::filesystem::path& directory, uint64_t bytes);

}  // namespace halo
