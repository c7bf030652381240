// Checkpoints: written beside, synced, renamed, read back; the order of the steps is the point.
#include "halo/train/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/train/checkpoint_save.h"
#include "halo/train/parameter_file.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFormat = 1;
constexpr uint64_t kSideFileBytes = uint64_t{32} << 20;  // tokenizer, configuration, headers
const char* const kManifest = "state/manifest.json";

struct Arena {
  const char* file;
  at::Tensor& (ParameterStore::*tensor)();
};
constexpr Arena kArenas[] = {
    {kMastersFile, &ParameterStore::master},
    {kMoment1File, &ParameterStore::moment1},
    {kMoment2File, &ParameterStore::moment2},
};

void check(const std::error_code& error, const char* what, const fs::path& path) {
  if (error) throw_error("{}: cannot {}: {}", path.string(), what, error.message());
}

void remove_folder(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  check(error, "remove", path);
}

void move_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  check(error, "rename", from);
}

void sync_file(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool good = fd >= 0 && ::fsync(fd) == 0;
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  if (!good) throw_error("{}: cannot sync: {}", path.string(), std::strerror(reason));
}

// "step-120" -> 120
std::optional<int64_t> parse_step(const std::string& name) {
  if (!name.starts_with("step-")) return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + 5, end, step);
  if (error != std::errc() || stop != end || step < 0) return std::nullopt;
  return step;
}

// Syncs every file and folder under `folder` and describes the files, in name order.
json::array sync_and_list(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_directory()) {
      sync_directory(entry.path());
    } else {
      paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  json::array files;
  for (const fs::path& path : paths) {
    sync_file(path);
    files.push_back({{"path", fs::relative(path, folder).string()},
                     {"size", static_cast<int64_t>(fs::file_size(path))},
                     {"hash", hash_file(path)}});
  }
  return files;
}

json::object to_json(const TrainState& state, json::array files) {
  const std::string recipe = json::serialize(state.recipe);
  return {{"format", kFormat},
          {"stage", state.stage},
          {"step", state.step},
          {"tokens", state.tokens},
          {"seed", fmt::format("{}", state.seed)},
          {"data", state.data_id},
          {"recipe", state.recipe},
          {"recipe_hash", hash_hex(std::as_bytes(std::span(recipe)))},
          {"threads", state.threads},
          {"ranks", state.ranks},
          {"context_ranks", state.context_ranks},
          {"device", state.device},
          {"kernels", state.kernels},
          {"compute", state.compute},
          {"version", HALO_VERSION},
          {"files", std::move(files)}};
}

TrainState from_json(const json::object& object, const std::string& file) {
  if (const auto format = json_get<int64_t>(object, "format", file); format != kFormat) {
    throw_error("{}: format {}, this program reads {}", file, format, kFormat);
  }
  TrainState state;
  state.stage = json_get<std::string>(object, "stage", file);
  state.step = json_get<int64_t>(object, "step", file);
  state.tokens = json_get<int64_t>(object, "tokens", file);
  state.seed = std::strtoull(json_get<std::string>(object, "seed", file).c_str(), nullptr, 10);
  state.data_id = json_get<std::string>(object, "data", file);
  state.recipe = json_get<json::object>(object, "recipe", file);
  state.threads = json_get<int64_t>(object, "threads", file);
  state.ranks = json_get_or<int64_t>(object, "ranks", 1, file);
  state.context_ranks = json_get_or<int64_t>(object, "context_ranks", 1, file);
  state.device = json_get<std::string>(object, "device", file);
  state.kernels = json_get<std::string>(object, "kernels", file);
  state.compute = json_get_or<std::string>(object, "compute", "", file);
  return state;
}

}  // namespace

Checkpoints::Checkpoints(fs::path directory, int64_t keep, Communicator& ranks)
    : directory_(std::move(directory)), keep_(keep), ranks_(ranks) {
  HALO_CHECK(keep >= 2, "checkpoints: keep {} is fewer than 2", keep);
  std::error_code error;
  fs::create_directories(directory_, error);
  check(error, "create the folder", directory_);
}

fs::path Checkpoints::path(int64_t step) const {
  return directory_ / fmt::format("step-{}", step);
}

void Checkpoints::clean() const {
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(directory_)) {
    if (entry.path().extension() == ".tmp") leftovers.push_back(entry.path());
  }
  for (const fs::path& path : leftovers) remove_folder(path);
}

std::vector<int64_t> Checkpoints::steps() const {
  std::vector<int64_t> steps;
  for (const auto& entry : fs::directory_iterator(directory_)) {
    const auto step = parse_step(entry.path().filename().string());
    if (step && entry.is_directory()) steps.push_back(*step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

TrainState Checkpoints::verify(int64_t step, bool hashes) const {
  const fs::path manifest = path(step) / kManifest;
  if (!fs::exists(manifest)) throw_error("{}: has no {}", path(step).string(), kManifest);
  const json::value value = read_json(manifest);
  const std::string file = manifest.string();
  if (!value.is_object()) throw_error("{}: not a JSON object", file);
  TrainState state = from_json(value.as_object(), file);
  if (state.step != step) throw_error("{}: is of step {}, not {}", file, state.step, step);
  for (const json::value& entry : json_get<json::array>(value.as_object(), "files", file)) {
    if (!entry.is_object()) throw_error("{}: 'files' holds something else than objects", file);
    const json::object& about = entry.as_object();
    const fs::path path = this->path(step) / json_get<std::string>(about, "path", file);
    const auto expected = json_get<int64_t>(about, "size", file);
    std::error_code error;
    const auto size = fs::file_size(path, error);
    check(error, "read", path);
    if (static_cast<int64_t>(size) != expected) {
      throw_error("{}: has {} bytes, the manifest says {}", path.string(), size, expected);
    }
    if (hashes && hash_file(path) != json_get<std::string>(about, "hash", file)) {
      throw_error("{}: is damaged, its hash is not the manifest's", path.string());
    }
  }
  return state;
}

std::optional<TrainState> Checkpoints::load_newest(
    ParameterStore& store, const std::function<void(const std::string&)>& warn) const {
  std::optional<TrainState> state;
  if (ranks_.is_first()) state = find_newest(warn);
  const std::string step = ranks_.broadcast(state ? fmt::format("{}", state->step) : "");
  if (step.empty()) return std::nullopt;
  if (!state) state = verify(std::stoll(step), /*hashes=*/false);
  load(state->step, store);
  return state;
}

// Moves what is damaged and newer out of the way.
std::optional<TrainState> Checkpoints::find_newest(
    const std::function<void(const std::string&)>& warn) const {
  std::vector<int64_t> damaged;
  std::string reason;
  for (int64_t step : steps()) {
    TrainState state;
    try {
      state = verify(step, /*hashes=*/true);
    } catch (const Error& error) {
      if (damaged.empty()) reason = error.what();
      warn(fmt::format("checkpoint passed over: {}", error.what()));
      damaged.push_back(step);
      continue;
    }
    // Checkpoints will be written at these steps again.
    for (int64_t bad : damaged) {
      const fs::path aside = path(bad).string() + ".damaged";
      remove_folder(aside);
      move_folder(path(bad), aside);
    }
    return state;
  }
  if (damaged.empty()) return std::nullopt;
  throw_error("{}: no checkpoint in it is whole ({}); remove the folder to start again",
              directory_.string(), reason);
}

void Checkpoints::load(int64_t step, ParameterStore& store) const {
  at::NoGradGuard no_grad;
  for (const Arena& arena : kArenas) {
    load_kept(path(step) / arena.file, store, (store.*arena.tensor)());
  }
  store.refresh_compute();
}

void Checkpoints::save(const TrainState& state, ParameterStore& store,
                       const SavedModel& model) const {
  const Progress phase("writing " + path(state.step).string());
  CheckpointSave save(*this, state, store, model, values_of(store));
  for (int64_t part = 0; part < save.num_parts(); ++part) {
    save.do_part(part);
    ranks_.wait();
  }
}

void Checkpoints::put_in_place(TemporaryPath& folder, const TrainState& state) const {
  json::array files = sync_and_list(folder.path());
  crash_point("checkpoint.before_manifest");
  write_json(folder.path() / kManifest, to_json(state, std::move(files)));
  sync_directory(folder.path());
  crash_point("checkpoint.before_rename");
  folder.rename_to(path(state.step));
  sync_directory(directory_);
  verify(state.step, /*hashes=*/true);
  crash_point("checkpoint.before_cleanup");
  remove_old();
}

void Checkpoints::remove_old() const {
  const std::vector<int64_t> all = steps();
  for (size_t i = keep_; i < all.size(); ++i) {
    // Renamed first, so that one that is half gone is never taken for a checkpoint.
    const fs::path going = path(all[i]).string() + ".tmp";
    move_folder(path(all[i]), going);
    fs::remove(going / kManifest);
    crash_point("checkpoint.mid_cleanup");
    remove_folder(going);
  }
}

uint64_t checkpoint_bytes(const ParameterStore& store, const SavedModel& model) {
  const auto arena = num_parameters(store.specs()) * sizeof(float);
  return kSideFileBytes + bytes_of(model_file_of(model, store, {})) + std::size(kArenas) * arena;
}

void require_space(const fs::path& directory, uint64_t bytes) {
  std::error_code error;
  const fs::space_info space = fs::space(directory, error);
  check(error, "ask for the free space", directory);
  if (space.available < bytes) {
    throw_error("{}: a checkpoint needs {:.3f} GB, the disk has {:.3f} GB free", directory.string(),
                bytes / 1e9, space.available / 1e9);
  }
}

}  // namespace halo
