// Append-only JSON lines with truncation on resume.
#include "halo/base/json_lines.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <string>

#include "halo/base/check.h"
#include "halo/base/files.h"

namespace halo {
namespace {

// Null where a crash left half of it.
json::value read_line(const std::string& line, const std::string& file) {
  try {
    return parse_json(line, file);
  } catch (const ParseError&) {
    return nullptr;
  }
}

}  // namespace

JsonLines::JsonLines(const std::filesystem::path& path, int64_t last_step) : path_(path) {
  if (std::filesystem::exists(path)) {
    const std::string text = read_file(path);
    std::string keep;
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
      const std::string line = text.substr(begin, end - begin);
      const json::value value = read_line(line, path.string());
      const json::value* step = value.is_object() ? value.as_object().if_contains("step") : nullptr;
      if (!step || !step->is_int64() || step->as_int64() > last_step) continue;
      keep += line + '\n';
      kept_.push_back(value.as_object());
    }
    if (keep != text) write_file(path, keep);
  }
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_error("{}: cannot open for writing: {}", path.string(), std::strerror(errno));
}

JsonLines::~JsonLines() {
  if (fd_ >= 0) ::close(fd_);
}

void JsonLines::append(const json::object& line) {
  const std::string text = json::serialize(line) + '\n';
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_error("{}: cannot write: {}", path_.string(), std::strerror(errno));
    done += n;
  }
}

void JsonLines::sync() {
  if (::fsync(fd_) != 0) throw_error("{}: cannot sync: {}", path_.string(), std::strerror(errno));
}

json::value finite_or_null(double value) {
  return std::isfinite(value) ? json::value(value) : json::value(nullptr);
}

}  // namespace halo
