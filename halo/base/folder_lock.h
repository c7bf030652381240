// Who works in a folder.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace halo {

// One process works in a folder at a time: an Error, which names the other one, where there is
// another. Makes the folder; its file `lock` is there as long as this is, and the system frees the
// lock of a process that ended in any way. A folder that holds nothing at the end and that this
// made goes.
class FolderLock {
 public:
  explicit FolderLock(std::filesystem::path folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  // "process 4711 on host", of the one that works there now; nothing: nobody does.
  static std::optional<std::string> holder(const std::filesystem::path& folder);

 private:
  std::filesystem::path folder_;
  bool made_folder_ = false;
  int fd_ = -1;
};

}  // namespace halo
