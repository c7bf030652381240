// Records of what stages are made of.
#include "halo/pipeline/provenance.h"

#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/eval/tasks/catalogue.h"
#include "halo/formats/side_files.h"
#include "halo/stages/task_sweep.h"

namespace halo {
namespace {

constexpr const char* kTrainingLength = "longest sequence trained on";

std::string text_of(const json::value& value) {
  return std::string(value.as_string());
}

int64_t nanoseconds_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

// Of a model directory: configuration, weights and what is carried along, as paths inside it.
std::vector<fs::path> model_files(const fs::path& directory) {
  std::vector<fs::path> names = side_files(directory);
  names.push_back("config.json");
  for (const fs::path& path : WeightFiles(directory).paths()) names.push_back(path.filename());
  return names;
}

class Description {
 public:
  Description(FileHashes& hashes, Absent absent) : hashes_(hashes), absent_(absent) {}

  void add_model(const std::string& of, const fs::path& directory) {
    add(of, [&] {
      for (const fs::path& name : model_files(directory)) add_file(of, name, directory / name);
    });
  }
  void add_shards(const std::string& of, const std::vector<std::string>& entries) {
    add(of, [&] {
      for (size_t i = 0; i < entries.size(); ++i) {
        for (const fs::path& path : expand_shards(entries[i])) {
          // Weights go by the entry.
          add_file(of, path.filename(), path, entries.size() > 1 ? static_cast<int64_t>(i) : 0);
        }
      }
    });
  }
  void add_files(const std::string& of, const std::function<std::vector<fs::path>()>& paths) {
    add(of, [&] {
      for (const fs::path& path : paths()) add_file(of, path.filename(), path);
    });
  }
  json::array files() && { return std::move(files_); }

 private:
  void add(const std::string& of, const std::function<void()>& fill) {
    const size_t before = files_.size();
    try {
      fill();
    } catch (const Error&) {
      if (absent_ == Absent::kRefused) throw;
      files_.resize(before);
      files_.push_back(json::object{{"of", of}, {"absent", true}});
    }
  }
  void add_file(const std::string& of, const fs::path& name, const fs::path& path,
                int64_t entry = 0) {
    json::object file{{"of", of}, {"name", name.string()}};
    if (entry > 0) file["entry"] = entry;
    for (auto& [key, value] : hashes_.describe(path)) file[key] = std::move(value);
    files_.push_back(std::move(file));
  }

  FileHashes& hashes_;
  Absent absent_;
  json::array files_;
};

// One input's files: what they are called and what they hold, in order.
struct Files {
  std::vector<std::string> names, contents;
  bool absent = false;
};

Files files_of(const json::object& record, const std::string& of, bool by_name) {
  Files out;
  for (const json::value& value : record.at("files").as_array()) {
    const json::object& file = value.as_object();
    if (text_of(file.at("of")) != of) continue;
    if (file.contains("absent")) {
      out.absent = true;
      continue;
    }
    out.names.push_back(text_of(file.at("name")));
    const json::value* entry = file.if_contains("entry");
    out.contents.push_back(fmt::format("{} {} {}", by_name ? out.names.back() : "",
                                       entry ? entry->as_int64() : 0, text_of(file.at("hash"))));
  }
  return out;
}

// The first file that is not as it was, by the name that it has now.
std::string first_difference(const Files& before, const Files& now) {
  for (size_t i = 0; i < now.names.size(); ++i) {
    if (std::ranges::find(before.contents, now.contents[i]) == before.contents.end())
      return now.names[i];
  }
  return fmt::format("{} files where there are {} now", before.names.size(), now.names.size());
}

}  // namespace

FileHashes::FileHashes(fs::path base) : base_(fs::absolute(base).lexically_normal()) {
  if (!base_.has_filename()) base_ = base_.parent_path();  // "run/"
}

void FileHashes::remember(const json::object& record) {
  for (const json::value& file : record.at("files").as_array()) {
    json::object about = file.as_object();
    if (!about.contains("hash")) continue;
    for (const char* key : {"of", "name", "entry"}) about.erase(key);
    known_[text_of(about.at("path"))] = about;
  }
}

json::object FileHashes::describe(const fs::path& path) {
  const fs::path absolute = fs::absolute(path).lexically_normal();
  const fs::path inside = absolute.lexically_relative(base_);
  const bool is_inside = !inside.empty() && *inside.begin() != "..";
  const std::string key = (is_inside ? inside : absolute).string();
  struct stat status = {};
  if (::stat(absolute.c_str(), &status) != 0) throw_error("{}: is not there", absolute.string());
  const auto size = static_cast<int64_t>(status.st_size);
  int64_t modified = status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec;
  if (const auto known = known_.find(key); known != known_.end()) {
    const json::object& about = known->second;
    if (about.at("size") == size && about.at("modified") == modified) return about;
  }
  // One that changed a moment ago could change again within the same tick of the clock.
  if (nanoseconds_now() - modified < 50'000'000) modified = 0;
  std::optional<Progress> progress;  // of what takes long
  if (size > 100'000'000) progress.emplace("hash of " + key, 1);
  json::object about{
      {"path", key}, {"size", size}, {"modified", modified}, {"hash", hash_file(absolute)}};
  known_[key] = about;
  return about;
}

json::object describe_inputs(const Stage& stage, const Recipe& recipe,
                             const std::vector<fs::path>* models, FileHashes& hashes,
                             Absent absent) {
  Recipe copy = recipe;  // settings() lists members that can be set
  const Settings all = settings_of(copy);
  json::object settings;
  Description files(hashes, absent);
  files.add_model("teacher", recipe.teacher);
  for (const Setting& setting : all.all()) {
    if (setting.about.effect == Effect::kNone || !reads(stage, setting.key)) continue;
    if (!names_files(setting.key)) {
      settings[setting.key] = value_to_toml(setting);
    } else if (setting.key == "select.data") {  // a folder, of which the tasks are read
      files.add_files(setting.key, [&] { return select_task_files(recipe.select); });
    } else if (setting.key == "scale.data") {
      if (recipe.scale.tasks.empty()) continue;
      files.add_files(setting.key, [&] { return hay_files(recipe.scale.data); });
    } else if (const auto* entries = std::get_if<std::vector<std::string>*>(&setting.value)) {
      files.add_shards(setting.key, **entries);
    } else if (const auto* entry = std::get_if<std::string*>(&setting.value)) {
      if (!(*entry)->empty()) files.add_shards(setting.key, {**entry});
    }
  }
  if (stage.reads_training_length) {
    settings[kTrainingLength] = std::to_string(context_settings(recipe).longest_row);
  }
  for (size_t i = 0; models && i < models->size(); ++i) {
    if (!(*models)[i].empty()) files.add_model(stage.inputs[i].option, (*models)[i]);
  }
  return {{"version", HALO_VERSION},
          {"settings", std::move(settings)},
          {"models", models != nullptr},
          {"files", std::move(files).files()}};
}

std::vector<Change> compare_inputs(const Stage& stage, const json::object& before,
                                   const json::object& now) {
  std::vector<Change> changes;
  Recipe defaults;
  const Settings all = settings_of(defaults);
  const json::object& old = before.at("settings").as_object();
  for (const auto& [name, value] : now.at("settings").as_object()) {
    const std::string key(name), is = text_of(value);
    // A setting that is newer than the record had its default's effect.
    const Setting* setting = all.find(key);
    const std::string was = old.contains(key) ? text_of(old.at(key))
                            : setting         ? value_to_toml(*setting)
                                              : is;
    if (was != is) changes.push_back({fmt::format("{} = {}, which is {} now", key, was, is)});
  }
  std::vector<std::pair<std::string, bool>> inputs = {{"teacher", false}};
  for (const Setting& setting : all.all()) {
    if (names_files(setting.key) && setting.key != "teacher")
      inputs.push_back({setting.key, false});
  }
  for (const StageInput& input : stage.inputs) inputs.push_back({input.option, true});
  for (const auto& [of, is_model] : inputs) {
    if (is_model && !now.at("models").as_bool()) continue;
    const bool by_name = is_model || of == "teacher";
    const Files was = files_of(before, of, by_name), is = files_of(now, of, by_name);
    if (was.absent || is.absent || was.contents == is.contents) continue;
    const std::string what = of == "teacher" ? "another teacher"
                             : is_model      ? "another " + of
                                             : "other " + of;
    changes.push_back({fmt::format("{} ({})", what, first_difference(was, is)), is_model});
  }
  return changes;
}

std::string join(const std::vector<Change>& changes) {
  std::vector<std::string> texts;
  for (const Change& change : changes) texts.push_back(change.text);
  return fmt::format("{}", fmt::join(texts, "; "));
}

std::string made_by(const json::object& record) {
  return text_of(record.at("version"));
}

json::object read_record(const fs::path& path) {
  const std::string file = path.string();
  const json::value value = read_json(path);
  if (!value.is_object()) throw_error("{}: expected a JSON object", file);
  json::object record = value.as_object();
  // What the rest of this file goes by.
  json_get<std::string>(record, "version", file);
  for (const auto& [key, setting] : json_get<json::object>(record, "settings", file)) {
    if (!setting.is_string()) throw_error("{}: settings.{} is no text", file, std::string(key));
  }
  for (const json::value& item : json_get<json::array>(record, "files", file)) {
    if (!item.is_object()) throw_error("{}: 'files' holds something else than objects", file);
    const json::object& about = item.as_object();
    json_get<std::string>(about, "of", file);
    if (about.contains("absent")) continue;
    for (const char* key : {"name", "path", "hash"}) json_get<std::string>(about, key, file);
    for (const char* key : {"size", "modified"}) json_get<int64_t>(about, key, file);
    json_get_or<int64_t>(about, "entry", 0, file);
  }
  return record;
}

}  // namespace halo
