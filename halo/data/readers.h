// Text in, documents out: plain text, JSON lines and Parquet, compressed or not, a piece at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace halo {

struct Document {
  std::string text;
  std::string source;  // "work:part", or empty where the input does not say
};

// Files and folders in, files out: a folder becomes the known files below it in name order. Known
// are
//   .txt     one document a file, its source the file's name
//   .jsonl   a document a line: "text", and "source" where there is one
//   (both also as .zst and .gz)
//   .parquet a document a row: column "text", and "source" where there is one
// A path that is none of these, or a folder without any, is an Error.
std::vector<std::filesystem::path> expand_inputs(const std::vector<std::filesystem::path>& inputs);

// Calls `use` with every document of the inputs, in order. Damaged or truncated streams, bad JSON
// and missing columns are Errors that name file and place.
void read_documents(const std::vector<std::filesystem::path>& inputs,
                    const std::function<void(Document)>& use);

// Calls `use` with a file's bytes in order, decompressed where it ends in .zst or .gz.
void stream_file(const std::filesystem::path& path,
                 const std::function<void(std::string_view)>& use);

// In parquet.cc; an Error where this build has no Arrow.
void read_parquet(const std::filesystem::path& path, const std::function<void(Document)>& use);

}  // namespace halo
