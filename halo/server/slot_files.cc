#include "halo/server/slot_files.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/server/api_error.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostLetters = 64;

bool is_name(const std::string& name) {
  const auto may_stand = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= kMostLetters && name.front() != '.' &&
         std::ranges::all_of(name, may_stand);
}

}  // namespace

SlotFiles::SlotFiles(fs::path folder, int64_t max_bytes)
    : folder_(std::move(folder)), max_bytes_(max_bytes) {
  if (is_on() && !fs::is_directory(folder_))
    throw_error("--slot-folder: {} is no folder; make it first", folder_.string());
}

fs::path SlotFiles::path(const std::string& name, const std::string& param) const {
  if (!is_name(name)) {
    throw bad_field(param, fmt::format("expected 1 to {} letters, digits, '.', '_' and '-', the "
                                       "first no '.'",
                                       kMostLetters));
  }
  return folder_ / name;
}

fs::path SlotFiles::existing(const std::string& name, const std::string& param) const {
  fs::path file = path(name, param);
  // A link would lead out of the folder.
  if (!fs::is_regular_file(fs::symlink_status(file)))
    throw ApiError(404, "slot_not_found", param, fmt::format("there is no slot '{}'", name));
  return file;
}

std::vector<SlotFiles::Slot> SlotFiles::list() const {
  std::vector<Slot> out;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    if (!is_name(name) || !fs::is_regular_file(entry.symlink_status(error))) continue;
    const auto bytes = entry.file_size(error);
    if (!error) out.push_back({name, static_cast<int64_t>(bytes)});
  }
  std::ranges::sort(out, {}, &Slot::name);
  return out;
}

void SlotFiles::check_room(const std::string& name, int64_t bytes) const {
  for (const Slot& slot : list()) {
    if (slot.name != name) bytes += slot.bytes;
  }
  if (bytes <= max_bytes_) return;
  throw ApiError(
      400, "slots_full", "",
      fmt::format("the slots would take {:.3f} GB of {:.3f} (--slot-gb); erase some",
                  static_cast<double>(bytes) / 1e9, static_cast<double>(max_bytes_) / 1e9));
}

std::string SlotFiles::without_folder(std::string text) const {
  const std::string place = folder_.string() + "/";
  for (size_t at = 0; (at = text.find(place, at)) != std::string::npos;)
    text.erase(at, place.size());
  return text;
}

}  // namespace halo
