// Files that survive a crash: written under a temporary name, synced, renamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "halo/base/stop.h"

namespace halo {

// A file or a folder with all in it that goes when this does, or when a signal ends the process,
// unless it was put in its place.
class TemporaryPath {
 public:
  explicit TemporaryPath(std::filesystem::path path);
  ~TemporaryPath();
  const std::filesystem::path& path() const { return path_; }
  // An Error with the system's reason if it cannot be renamed; it is gone then.
  void rename_to(const std::filesystem::path& to);
  // It stays, being none of ours.
  void leave();

 private:
  std::filesystem::path path_;
  std::optional<AtStop> at_stop_;  // none once it is in its place
};

// Appends to PATH.tmp; commit() syncs, renames to PATH and syncs the folder. Destroyed without
// commit(): PATH.tmp is removed and PATH is as before. Every failure (no space, no permission) is
// an Error with path, operation and the system's reason, and so is a PATH that is there and no
// regular file: a folder, a device, standard output.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  std::filesystem::path path_;
  std::optional<TemporaryPath> temporary_;
  int fd_ = -1;
};

void write_file(const std::filesystem::path& path, std::string_view text);  // through AtomicFile
std::string read_file(const std::filesystem::path& path, uint64_t max_bytes = uint64_t{1} << 32);
void copy_synced(const std::filesystem::path& from,
                 const std::filesystem::path& to);  // the same way
void sync_directory(const std::filesystem::path& path);
// Fills PATH.tmp, syncs it and renames it to PATH: there is never half a folder. Where `fill`
// throws, PATH is as it was and PATH.tmp is gone.
void commit_directory(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path&)>& fill);
// The same for a folder that a user names, with or without a slash behind it: an Error where it
// holds something already.
void commit_new_directory(const std::filesystem::path& path,
                          const std::function<void(const std::filesystem::path&)>& fill);

// A memory map of a whole file.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  // From now on bytes() may be written to: what is written goes to copies of its pages that this
  // map alone sees, never to the file.
  void allow_private_writes();

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Gives the memory of the pages wholly inside a part of a map back; touched again, they are read
// from the file again. Only for bytes of a MappedFile that were not written to.
void release_pages(std::span<const std::byte> bytes);

// XXH3 128-bit of bytes, as 32 hex digits. Not cryptographic: it finds damage, not malice.
std::string hash_hex(std::span<const std::byte> bytes);
std::string hash_file(const std::filesystem::path& path);

// Named points of a run at which the crash tests kill the process: if the environment's
// HALO_CRASH_AT equals NAME (or NAME:K, the K-th time, from 1), the process kills itself there with
// SIGKILL. Costs a comparison otherwise.
void crash_point(std::string_view name);

}  // namespace halo
