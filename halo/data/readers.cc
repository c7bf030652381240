#include "halo/data/readers.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/json.h"

namespace halo {

namespace fs = std::filesystem;

namespace {

// A document longer than this is taken for damage (or a bomb) rather than text.
constexpr size_t kMaxDocumentBytes = size_t{1} << 30;

enum class Kind { kText, kJsonLines, kParquet, kUnknown };

Kind kind_of(const fs::path& path) {
  fs::path name = path.filename();
  if (name.extension() == ".parquet") return Kind::kParquet;
  if (name.extension() == ".zst" || name.extension() == ".gz") name = name.stem();
  if (name.extension() == ".txt") return Kind::kText;
  if (name.extension() == ".jsonl") return Kind::kJsonLines;
  return Kind::kUnknown;
}

void read_text(const fs::path& path, const std::function<void(Document)>& use) {
  Document document{"", path.filename().string()};
  stream_file(path, [&](std::string_view bytes) {
    if (document.text.size() + bytes.size() > kMaxDocumentBytes) {
      throw_error("{}: longer than {} bytes; split it into documents", path.string(),
                  kMaxDocumentBytes);
    }
    document.text += bytes;
  });
  use(std::move(document));
}

Document parse_line(std::string_view line, const std::string& place) {
  const json::value value = parse_json(line, place);
  if (!value.is_object()) throw_error("{}: not a JSON object with a \"text\"", place);
  const json::object& object = value.as_object();
  return {json_get<std::string>(object, "text", place),
          json_get_or<std::string>(object, "source", "", place)};
}

void read_json_lines(const fs::path& path, const std::function<void(Document)>& use) {
  std::string line;
  int64_t number = 1;
  const auto finish_line = [&] {
    if (line.find_first_not_of(" \t\r") != std::string::npos) {
      use(parse_line(line, fmt::format("{}: line {}", path.string(), number)));
    }
    line.clear();
    ++number;
  };
  stream_file(path, [&](std::string_view bytes) {
    while (!bytes.empty()) {
      const size_t end = bytes.find('\n');
      line += bytes.substr(0, end);
      if (line.size() > kMaxDocumentBytes) {
        throw_error("{}: line {} is longer than {} bytes; split it into documents", path.string(),
                    number, kMaxDocumentBytes);
      }
      if (end == std::string_view::npos) break;
      finish_line();
      bytes.remove_prefix(end + 1);
    }
  });
  finish_line();
}

}  // namespace

std::vector<fs::path> expand_inputs(const std::vector<fs::path>& inputs) {
  constexpr auto kKnown = ".txt, .jsonl (also .zst, .gz) and .parquet";
  std::vector<fs::path> files;
  for (const auto& input : inputs) {
    if (!fs::is_directory(input)) {
      if (!fs::exists(input)) throw_error("{}: no such file or folder", input.string());
      if (kind_of(input) == Kind::kUnknown) {
        throw_error("{}: not a kind of text we read; known are {}", input.string(), kKnown);
      }
      files.push_back(input);
      continue;
    }
    std::vector<fs::path> found;
    for (const auto& item : fs::recursive_directory_iterator(input)) {
      if (item.is_regular_file() && kind_of(item.path()) != Kind::kUnknown) {
        found.push_back(item.path());
      }
    }
    if (found.empty()) throw_error("{}: no text below it; known are {}", input.string(), kKnown);
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

void read_documents(const std::vector<fs::path>& inputs, const std::function<void(Document)>& use) {
  for (const auto& path : expand_inputs(inputs)) {
    switch (kind_of(path)) {
      case Kind::kText:
        read_text(path, use);
        break;
      case Kind::kJsonLines:
        read_json_lines(path, use);
        break;
      case Kind::kParquet:
        read_parquet(path, use);
        break;
      case Kind::kUnknown:
        break;  // expand_inputs let none through
    }
  }
}

}  // namespace halo
