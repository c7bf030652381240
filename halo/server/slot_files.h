// Saved beginnings of prompts in one folder, under names that clients give.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace halo {

class SlotFiles {
 public:
  // An Error where `folder` is none; empty: there are no slots.
  SlotFiles(std::filesystem::path folder, int64_t max_bytes);

  bool is_on() const { return !folder_.empty(); }
  // Where a slot of this name is or would be. An ApiError of `param` where the name is not 1 to 64
  // letters, digits, '.', '_' and '-', the first no '.'.
  std::filesystem::path path(const std::string& name, const std::string& param) const;
  // The same of one that is there; a 404 where it is not.
  std::filesystem::path existing(const std::string& name, const std::string& param) const;

  struct Slot {
    std::string name;
    int64_t bytes = 0;
  };
  std::vector<Slot> list() const;  // by name
  // An ApiError where `bytes` more, in place of the slot `name`, are too many.
  void check_room(const std::string& name, int64_t bytes) const;
  // An error's text without where the folder is.
  std::string without_folder(std::string text) const;

 private:
  const std::filesystem::path folder_;
  const int64_t max_bytes_;
};

}  // namespace halo
