// Tokenizers: ids and decoded text of every case.
#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/data/readers.h"
#include "halo/tokenizer/tokenizer.h"
#include "tests/golden/forms.h"

namespace halo::golden {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kCases = ".cases.jsonl";

// The file as it is or compressed.
fs::path stored(const fs::path& path) {
  return fs::exists(path) ? path : fs::path(path.string() + ".zst");
}

std::string read_text(const fs::path& path) {
  std::string text;
  stream_file(path, [&](std::string_view piece) { text += piece; });
  return text;
}

void check_line(const Tokenizer& tokenizer, std::string_view line, const std::string& where,
                Findings& findings) {
  const json::value parsed = parse_json(line, where);
  const json::object& object = parsed.as_object();
  const auto ids = json::value_to<std::vector<int64_t>>(object.at("ids"));
  const auto decoded = json_get<std::string>(object, "decoded", where);
  findings.equal(where + ", ids",
                 tokenizer.encode(json_get<std::string>(object, "text", where)) == ids);
  findings.equal(where + ", decoded", tokenizer.decode(ids) == decoded);
  StreamDecoder stream(tokenizer, false);
  std::string streamed;
  for (const int64_t id : ids) stream.push(id, streamed);
  stream.finish(streamed);
  findings.equal(where + ", decoded as a stream", streamed == decoded);
  findings.equal(where + ", decoded without special tokens",
                 tokenizer.decode(ids, true) ==
                     json_get_or<std::string>(object, "decoded_skip_special", decoded, where));
}

}  // namespace

std::vector<std::string> tokenizer_names(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const size_t at = name.find(kCases);
    if (at != std::string::npos) names.push_back(name.substr(0, at));
  }
  return names;
}

void check_tokenizer(const fs::path& folder, const std::string& name, Findings& findings) {
  const fs::path file = stored(folder / (name + ".tokenizer.json"));
  check_cases(Tokenizer(read_text(file), file.string()),
              stored(folder / (name + std::string(kCases))), findings);
}

void check_cases(const Tokenizer& tokenizer, const fs::path& file, Findings& findings) {
  const std::string cases = read_text(file);
  int64_t number = 0;
  for (size_t begin = 0; begin < cases.size();) {
    const size_t end = std::min(cases.find('\n', begin), cases.size());
    const std::string where = fmt::format("case {}", ++number);
    const auto line = std::string_view(cases).substr(begin, end - begin);
    if (!line.empty()) check_line(tokenizer, line, where, findings);
    begin = end + 1;
  }
}

}  // namespace halo::golden
