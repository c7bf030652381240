#include "halo/eval/tasks/item_file.h"

#include "halo/base/check.h"
#include "halo/data/readers.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

// Empty: there is none.
fs::path file_of(const fs::path& directory, const std::string& task) {
  for (const char* ending : {".jsonl", ".jsonl.zst", ".jsonl.gz"}) {
    fs::path file = directory / (task + ending);
    if (fs::exists(file)) return file;
  }
  return {};
}

}  // namespace

fs::path find_items(const fs::path& directory, const std::string& task) {
  fs::path file = file_of(directory, task);
  if (!file.empty()) return file;
  throw_error("{}: no {}.jsonl, .jsonl.zst or .jsonl.gz there", directory.string(), task);
}

std::string ItemLine::id() const {
  for (const char* key : {"id", "doc_id"}) {
    const json::value* id = fields_.if_contains(key);
    if (!id) continue;
    return id->is_int64() ? std::to_string(id->get_int64()) : text(key);
  }
  return std::to_string(number_);
}

std::string ItemLine::text(std::string_view key) const {
  return json_get<std::string>(fields_, key, place_);
}

std::string ItemLine::text_or(std::string_view key, const std::string& fallback) const {
  return json_get_or<std::string>(fields_, key, fallback, place_);
}

std::vector<std::string> ItemLine::texts(std::string_view key) const {
  std::vector<std::string> texts;
  for (const json::value& value : json_get<json::array>(fields_, key, place_)) {
    if (!value.is_string()) throw_error("{}: '{}' must hold texts only", place_, key);
    texts.emplace_back(value.get_string());
  }
  if (texts.empty()) throw_error("{}: '{}' is empty", place_, key);
  return texts;
}

int64_t ItemLine::integer(std::string_view key, int64_t end) const {
  const auto value = json_get<int64_t>(fields_, key, place_);
  if (value < 0 || value >= end) {
    throw_error("{}: '{}' is {}, expected 0 to {}", place_, key, value, end - 1);
  }
  return value;
}

bool has_items(const fs::path& directory, const std::string& task) {
  return !file_of(directory, task).empty();
}

void read_items(const fs::path& directory, const std::string& task, int64_t limit,
                const std::function<void(const ItemLine&)>& use) {
  const fs::path file = find_items(directory, task);
  int64_t number = 0;
  read_json_lines(file, [&](const json::object& fields, const std::string& place) {
    if (limit > 0 && number >= limit) return;
    use(ItemLine(fields, place, number++));
  });
  if (number == 0) throw_error("{}: there is no item in it", file.string());
}

}  // namespace halo
