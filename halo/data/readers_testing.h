// What the tests of readers share: compressed text, and documents as short strings.
#pragma once

#include <zlib.h>
#include <zstd.h>

#include "halo/data/readers.h"
#include "halo/data/shard_testing.h"

namespace halo::test {

inline std::string zstd(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

inline std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

// "source|text" of every document.
inline std::vector<std::string> read(const std::vector<std::filesystem::path>& inputs,
                                     SourceUse source = SourceUse::kIfText) {
  std::vector<std::string> documents;
  const auto use = [&](Document document) {
    documents.push_back(document.source + "|" + document.text);
  };
  read_documents(inputs, use, source);
  return documents;
}

}  // namespace halo::test
