// Items of a task from a file: DIR/TASK.jsonl, .jsonl.zst or .jsonl.gz (docs/formats/eval.md).
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "halo/base/json.h"

namespace halo {

// One line, with readers that name its place.
class ItemLine {
 public:
  ItemLine(const json::object& fields, std::string place, int64_t number)
      : fields_(fields), place_(std::move(place)), number_(number) {}

  std::string id() const;  // "id" or "doc_id", a text or an integer; else the item's number
  std::string text(std::string_view key) const;
  std::string text_or(std::string_view key, const std::string& fallback) const;
  std::vector<std::string> texts(std::string_view key) const;  // at least one
  int64_t integer(std::string_view key, int64_t end) const;    // 0 .. end-1
  const std::string& place() const { return place_; }          // "FILE: line N"

 private:
  const json::object& fields_;
  std::string place_;
  int64_t number_;  // of the item, from 0
};

// Whether a task has one of its three files, and the first that is there; an Error where none is.
bool has_items(const std::filesystem::path& directory, const std::string& task);
std::filesystem::path find_items(const std::filesystem::path& directory, const std::string& task);

// Calls `use` with the first `limit` items of a task (0: all), in order. An Error where none of the
// three files is there, or a file has no item.
void read_items(const std::filesystem::path& directory, const std::string& task, int64_t limit,
                const std::function<void(const ItemLine&)>& use);

}  // namespace halo
