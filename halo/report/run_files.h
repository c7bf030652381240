// What a run folder holds (docs/formats/run-folder.md), read once. Everything may be absent, since
// a run may have failed, been killed or still be going; what is there and damaged is an Error that
// names the file.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "halo/base/json.h"
#include "halo/report/markup.h"

namespace halo {

// An object of a JSON file, or nothing. Absent keys and nulls read as no number, empty text, no
// items; a value of another kind is an Error that names file and key. The file must outlive it.
class JsonView {
 public:
  JsonView() = default;
  JsonView(const json::object& object, const std::string& file) : object_(&object), file_(&file) {}

  explicit operator bool() const { return object_ != nullptr; }
  // Both not for an empty view.
  const json::object& members() const { return *object_; }
  const std::string& file() const { return *file_; }
  bool has(std::string_view key) const;
  double number(std::string_view key) const;  // kNoNumber where there is none
  bool flag(std::string_view key) const;
  std::string text(std::string_view key) const;
  JsonView object(std::string_view key) const;
  std::vector<JsonView> objects(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string> texts(std::string_view key) const;

 private:
  const json::value* find(std::string_view key) const;  // null where absent or JSON's null
  const json::array* array(std::string_view key) const;

  const json::object* object_ = nullptr;
  const std::string* file_ = nullptr;
};

struct JsonFile {
  std::string path;  // empty: there is none
  json::object root;
  JsonView view() const { return path.empty() ? JsonView() : JsonView(root, path); }
};

// metrics.jsonl by column; a line without a number there has kNoNumber.
struct Metrics {
  size_t rows = 0;
  std::map<std::string, std::vector<double>, std::less<>> columns;

  std::vector<double> column(std::string_view name) const;
};

struct StageFiles {
  std::string name;
  bool started = false;      // there is a folder
  bool failed = false;       // `result` is failed.json
  double steps = kNoNumber;  // updates it makes in all
  JsonFile result;
  Metrics metrics;
  std::vector<json::object> events;

  size_t count_events(std::string_view name) const;
};

struct RunFiles {
  std::filesystem::path folder;
  JsonFile summary, selection, scale;
  JsonFile tasks;              // tasks.json, what `halo eval --tasks` found
  JsonFile answers;            // {"answers": [...]}: of task-samples.jsonl, the first that a model
                               // wrote in a task
  JsonFile environment;        // env.json without its stages, which are in `stages`
  std::string status;          // what STATUS says: "running distill"
  std::string stale;           // and which files are older than the stages: "model summary.json"
  std::string recipe;          // config.resolved.toml
  double seconds = kNoNumber;  // spent converting so far
  std::vector<StageFiles> stages;  // in the order they run; those to come have not started

  std::string name() const;                              // of the folder
  const StageFiles* find(std::string_view stage) const;  // null: there is none
};

// An Error where the folder holds nothing of a run.
RunFiles read_run(const std::filesystem::path& folder);

}  // namespace halo
