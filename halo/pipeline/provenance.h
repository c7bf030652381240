// What a stage was made of: the record that it writes when it begins (inputs.json,
// docs/formats/run-folder.md), and what of that is different now.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "halo/base/json.h"
#include "halo/pipeline/stage.h"

namespace halo {

// Hashes of files. A file is read again only where its size or the time of its last change are not
// those that a record has.
class FileHashes {
 public:
  // Files inside `base` are recorded by their place in it, so that the folder can be moved; all
  // others by their absolute path.
  explicit FileHashes(fs::path base);
  // The files of a record as they were then.
  void remember(const json::object& record);
  // {"path", "size" in bytes, "modified" in ns since 1970, "hash": XXH3-128}
  json::object describe(const fs::path& path);

 private:
  fs::path base_;
  std::map<std::string, json::object> known_;  // by "path"
};

enum class Absent {
  kRefused,
  kUnknown,  // the record lacks them, and nothing is said to have changed
};

// {"version", "settings": {key: value as TOML}, "files": [{"of", "name", "path", "size",
// "modified", "hash"}]} of a stage that would begin now: the settings that it reads and that change
// its result, the teacher, its shards and, where they are given, the models that it starts from
// (the inputs of its row, in their order). `of` is "teacher", a setting that names shards, or an
// input.
json::object describe_inputs(const Stage& stage, const Recipe& recipe,
                             const std::vector<fs::path>* models, FileHashes& hashes,
                             Absent absent = Absent::kRefused);

struct Change {
  std::string text;    // behind "was made with": "align.tokens = 1000, which is 2000 now"
  bool model = false;  // it is a model that the stage starts from
};
// Of those inputs that `now` describes; another version of the program is none (made_by).
std::vector<Change> compare_inputs(const Stage& stage, const json::object& before,
                                   const json::object& now);
// "distill.clip = 1, which is 2 now; other data.shards (a.halotok)"
std::string join(const std::vector<Change>& changes);
// The version of halo that wrote the record.
std::string made_by(const json::object& record);

// A record that is there; an Error where it is damaged.
json::object read_record(const fs::path& path);

}  // namespace halo
