// Shards by many machines: each packs its part of the files, every file for itself.
#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/data/pack.h"
#include "halo/data/readers.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

void add(PackCounts& sum, const PackCounts& more) {
  sum.files += more.files;
  sum.documents_read += more.documents_read;
  sum.documents_empty += more.documents_empty;
  sum.documents += more.documents;
  sum.bytes += more.bytes;
  sum.tokens += more.tokens;
  sum.shards += more.shards;
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
  return paths;
}

// The shards of a file that was packed into `from`, under its number, in place of those before.
void move_shards(const fs::path& from, const fs::path& to, int64_t number) {
  const std::string prefix = fmt::format("file-{:05}-", number);
  for (const fs::path& path : entries_of(to)) {
    if (path.filename().string().starts_with(prefix)) fs::remove(path);
  }
  for (const fs::path& path : entries_of(from)) {
    fs::rename(path, to / (prefix + path.filename().string()));
  }
  fs::remove(from);
  sync_directory(to);
}

}  // namespace

PackCounts pack_part(const std::vector<fs::path>& inputs, const fs::path& tokenizer_json,
                     const fs::path& output, const PackOptions& options, const PackPart& part) {
  const InputFiles files = expand_inputs(inputs);
  if (part.count > std::ssize(files.read)) {
    throw_error("--shard {}/{}: there are {} files; the parts are made of whole files", part.index,
                part.count, files.read.size());
  }
  std::error_code error;
  fs::create_directories(output, error);
  if (error) throw_error("{}: cannot make the folder: {}", output.string(), error.message());
  PackCounts counts;
  for (int64_t number = part.index; number < std::ssize(files.read); number += part.count) {
    const fs::path folder = output / fmt::format("file-{:05}.packing", number);
    fs::remove_all(folder);  // of a task that was killed
    add(counts, pack({files.read[number]}, tokenizer_json, folder, options));
    move_shards(folder, output, number);
  }
  return counts;
}

PackPart parse_pack_part(const std::string& text) {
  PackPart part;
  const auto slash = text.find('/');
  try {
    size_t index_end = 0, count_end = 0;
    if (slash == std::string::npos) throw_error("no slash");
    const std::string index = text.substr(0, slash), count = text.substr(slash + 1);
    part.index = std::stoll(index, &index_end);
    part.count = std::stoll(count, &count_end);
    if (index_end == index.size() && count_end == count.size() && part.index >= 0 &&
        part.index < part.count) {
      return part;
    }
  } catch (const std::exception&) {  // as any other text that is none
  }
  throw UsageError(fmt::format("--shard {}: give I/N, with I from 0 to N-1", text));
}

}  // namespace halo
