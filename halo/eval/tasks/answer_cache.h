// Answers that a model has given, kept in a file, so that a run goes on where it was broken off and
// no item is asked twice.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <unordered_map>

#include "halo/eval/tasks/task.h"

namespace halo {

// What a model's answers depend on, as a hash of its files (config.json, tokenizer.json, weights).
std::string model_hash(const std::filesystem::path& directory);

class AnswerCache {
 public:
  // Reads what is there: one JSON line an item, whose key is the hash of what is asked. Half a line
  // at the end, which a kill leaves, is dropped.
  explicit AnswerCache(const std::filesystem::path& file);

  const Answers* find(const TaskItem& item) const;  // nullptr: not asked yet
  void add(const TaskItem& item, const Answers& answers);
  void flush();

 private:
  std::filesystem::path path_;
  std::unordered_map<std::string, Answers> answers_;
  std::ofstream out_;
};

}  // namespace halo
