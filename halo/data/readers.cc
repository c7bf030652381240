#include "halo/data/readers.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/base/progress.h"
#include "halo/base/text.h"

namespace halo {

namespace fs = std::filesystem;

namespace {

// A document longer than this is taken for damage (or a bomb) rather than text.
constexpr size_t kMaxDocumentBytes = size_t{1} << 30;

enum class Kind { kText, kJsonLines, kParquet, kUnknown };

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
  return text;
}

Kind kind_of(const fs::path& path) {
  fs::path name = lower(path.filename().string());
  if (name.extension() == ".parquet") return Kind::kParquet;
  if (name.extension() == ".zst" || name.extension() == ".zstd" || name.extension() == ".gz")
    name = name.stem();
  const fs::path ending = name.extension();
  if (ending == ".txt") return Kind::kText;
  if (ending == ".jsonl" || ending == ".ndjson" || ending == ".jsonlines" || ending == ".json")
    return Kind::kJsonLines;
  return Kind::kUnknown;
}

// In folders .json is metadata more often than text.
bool is_known_in_folder(const fs::path& path) {
  return kind_of(path) != Kind::kUnknown && lower(path.extension().string()) != ".json";
}

// stream_file without a byte-order mark.
void stream_text(const fs::path& path, const std::function<void(std::string_view)>& use) {
  constexpr size_t kLongestMark = 4;
  std::string head;
  bool begun = false;
  const auto begin = [&] {
    begun = true;
    const std::string_view text = without_byte_order_mark(head, path.string());
    if (!text.empty()) use(text);
  };
  stream_file(path, [&](std::string_view bytes) {
    if (begun) return use(bytes);
    head += bytes;
    if (head.size() >= kLongestMark) begin();
  });
  if (!begun) begin();
}

void read_text(const fs::path& path, const std::function<void(Document)>& use) {
  Document document{"", path.filename().string()};
  stream_text(path, [&](std::string_view bytes) {
    if (document.text.size() + bytes.size() > kMaxDocumentBytes) {
      throw_error("{}: longer than {} bytes; split it into documents", path.string(),
                  kMaxDocumentBytes);
    }
    document.text += bytes;
  });
  use(std::move(document));
}

Document to_document(const json::object& object, const std::string& place, SourceUse source_use) {
  Document document;
  const json::value* text = object.if_contains("text");
  if (!text || !text->is_null()) document.text = json_get<std::string>(object, "text", place);
  const json::value* source = object.if_contains("source");
  if (source && !source->is_null() && (source->is_string() || source_use == SourceUse::kNeeded))
    document.source = json_get<std::string>(object, "source", place);
  return document;
}

}  // namespace

void read_json_lines(const fs::path& path,
                     const std::function<void(const json::object&, const std::string&)>& use) {
  std::string line;
  int64_t number = 1;
  const auto finish_line = [&] {
    if (line.find_first_not_of(" \t\r") != std::string::npos) {
      const std::string place = fmt::format("{}: line {}", path.string(), number);
      const json::value value = parse_json(line, place);
      if (!value.is_object()) throw_error("{}: not a JSON object", place);
      use(value.as_object(), place);
    }
    line.clear();
    ++number;
  };
  stream_text(path, [&](std::string_view bytes) {
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

namespace {

void read_file_of(const fs::path& path, const std::function<void(Document)>& use,
                  SourceUse source) {
  switch (kind_of(path)) {
    case Kind::kText:
      return read_text(path, use);
    case Kind::kJsonLines:
      return read_json_lines(path, [&](const json::object& object, const std::string& place) {
        use(to_document(object, place, source));
      });
    case Kind::kParquet:
      return read_parquet(path, use, source);
    case Kind::kUnknown:
      break;  // expand_inputs let none through
  }
}

}  // namespace

InputFiles expand_inputs(const std::vector<fs::path>& inputs) {
  constexpr auto kKnown = ".txt, .jsonl, .ndjson, .json (also .zst, .gz) and .parquet";
  InputFiles files;
  for (const auto& input : inputs) {
    if (!fs::is_directory(input)) {
      if (!fs::exists(input)) throw_error("{}: no such file or folder", input.string());
      if (kind_of(input) == Kind::kUnknown) {
        throw_error("{}: not a kind of text we read; known are {}", input.string(), kKnown);
      }
      files.read.push_back(input);
      continue;
    }
    std::vector<fs::path> found, others;
    for (const auto& item : fs::recursive_directory_iterator(input)) {
      // Links to folders are not followed, for they may lead back here.
      if (item.is_directory() && !item.is_symlink()) continue;
      const bool is_known = item.is_regular_file() && is_known_in_folder(item.path());
      (is_known ? found : others).push_back(item.path());
    }
    if (found.empty()) throw_error("{}: no text below it; known are {}", input.string(), kKnown);
    std::sort(found.begin(), found.end());
    std::sort(others.begin(), others.end());
    if (!others.empty()) {
      std::vector<std::string> names;
      for (const fs::path& path : others) names.push_back(path.lexically_relative(input).string());
      warn(fmt::format("{}: {} of its {} files {} left out, being no {}: {}", input.string(),
                       others.size(), found.size() + others.size(),
                       others.size() == 1 ? "is" : "are", kKnown, fmt::join(names, ", ")));
    }
    files.read.insert(files.read.end(), found.begin(), found.end());
    files.skipped.insert(files.skipped.end(), others.begin(), others.end());
  }
  return files;
}

void read_documents(const std::vector<fs::path>& inputs, const std::function<void(Document)>& use,
                    SourceUse source) {
  for (const auto& path : expand_inputs(inputs).read) {
    int64_t number = 0;
    bool warned = false;
    const auto check = [&](Document document) {
      ++number;
      if (!warned) {
        if (const auto at = invalid_utf8_at(document.text)) {
          warned = true;
          warn(fmt::format("{}: {}byte {}: {}; such bytes become U+FFFD", path.string(),
                           kind_of(path) == Kind::kText ? "" : fmt::format("row {}: ", number), *at,
                           describe_invalid_utf8(document.text, *at)));
        }
      }
      use(std::move(document));
    };
    read_file_of(path, check, source);
  }
}

}  // namespace halo
