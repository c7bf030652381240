// A file of one JSON object a line (metrics.jsonl, events.jsonl) that a resumed run continues as if
// it had never been interrupted.
#pragma once

#include <filesystem>
#include <vector>

#include "halo/base/json.h"

namespace halo {

class JsonLines {
 public:
  // Opens `path` to append. Of what it holds, whole lines with a "step" of at most `last_step`
  // stay; later ones (of steps that are done again) and a half-written last line go.
  JsonLines(const std::filesystem::path& path, int64_t last_step);
  ~JsonLines();
  JsonLines(const JsonLines&) = delete;
  JsonLines& operator=(const JsonLines&) = delete;

  const std::vector<json::object>& kept() const { return kept_; }
  void append(const json::object& line);
  void sync();

 private:
  std::filesystem::path path_;
  std::vector<json::object> kept_;
  int fd_ = -1;
};

// JSON has no NaN and no infinity: those become null.
json::value finite_or_null(double value);

}  // namespace halo
