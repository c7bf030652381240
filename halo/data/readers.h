// Text in, documents out: plain text, JSON lines and Parquet, compressed or not, a piece at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "halo/base/json.h"

namespace halo {

struct Document {
  std::string text;
  std::string source;  // "work:part", or empty where the input does not say
};

struct InputFiles {
  std::vector<std::filesystem::path> read;
  std::vector<std::filesystem::path> skipped;  // of folders; there is a warning that names them
};

// Files and folders in, files out: a folder becomes the known files below it in name order. Known,
// by endings in upper or lower case, are
//   .txt                         one document a file, its source the file's name
//   .jsonl, .ndjson, .jsonlines  a document a line: "text", and "source" where there is one
//   .json.gz, .json.zst          the same; .json too where it is named itself, for folders of
//                                corpora have such files beside the text
//   (all also as .zst, .zstd, .gz)
//   .parquet                     a document a row: column "text", and "source" where there is one
// A path that is none of these, or a folder without any, is an Error.
InputFiles expand_inputs(const std::vector<std::filesystem::path>& inputs);

// What is asked of "source".
enum class SourceUse {
  kIfText,  // of another kind: as if it was not there
  kNeeded,  // of another kind: an Error
};

// Calls `use` with every document of the inputs, in order; a null text is an empty one, a null
// source none, a byte-order mark of UTF-8 nothing. Damaged or truncated streams, bad JSON, another
// encoding's mark and missing columns are Errors that name file and place. Bytes of plain text and
// Parquet that are no UTF-8 are left to the tokenizer, with a warning for the first of a file.
void read_documents(const std::vector<std::filesystem::path>& inputs,
                    const std::function<void(Document)>& use,
                    SourceUse source = SourceUse::kIfText);

// Calls `use` with a file's bytes in order, decompressed where it ends in .zst, .zstd or .gz.
// Frames and members may follow each other, zeros a gzip member. zstd's window is 1 GiB at most.
void stream_file(const std::filesystem::path& path,
                 const std::function<void(std::string_view)>& use);

// Calls `use` with every line of a .jsonl file (also .zst, .gz) that is not blank, and where it
// stands, "FILE: line N". A line that is no JSON object is an Error.
void read_json_lines(
    const std::filesystem::path& path,
    const std::function<void(const json::object& object, const std::string& place)>& use);

// In parquet.cc; an Error where this build has no Arrow.
void read_parquet(const std::filesystem::path& path, const std::function<void(Document)>& use,
                  SourceUse source);

}  // namespace halo
