// Bytes of plain, zstd and gzip files through one small buffer.
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>

#include "halo/base/check.h"
#include "halo/data/readers.h"

namespace halo {

namespace {

constexpr size_t kBufferSize = size_t{1} << 18;

using Use = std::function<void(std::string_view)>;

// A file read a buffer at a time; `offset` is where the current buffer starts.
class Chunks {
 public:
  explicit Chunks(const std::filesystem::path& path)
      : path_(path), file_(path, std::ios::binary), buffer_(kBufferSize, '\0') {
    if (!file_) throw_error("{}: cannot read it: {}", path.string(), std::strerror(errno));
  }

  // Empty at the end of the file.
  std::string_view next() {
    offset_ += size_;
    file_.read(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
    if (file_.bad()) throw_error("{}: reading failed: {}", path_.string(), std::strerror(errno));
    size_ = static_cast<size_t>(file_.gcount());
    return {buffer_.data(), size_};
  }

  [[noreturn]] void fail(size_t position, const std::string& what) const {
    throw ParseError(path_.string(), offset_ + position, what);
  }

 private:
  std::filesystem::path path_;
  std::ifstream file_;
  std::string buffer_;
  size_t size_ = 0;
  uint64_t offset_ = 0;
};

void stream_zstd(Chunks& chunks, const Use& use) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   ZSTD_freeDCtx);
  HALO_CHECK(context != nullptr, "zstd: no memory for a decoder");
  std::string output(kBufferSize, '\0');
  size_t pending = 1;  // 0 between frames; an empty file is no stream
  for (auto chunk = chunks.next(); !chunk.empty(); chunk = chunks.next()) {
    ZSTD_inBuffer in{chunk.data(), chunk.size(), 0};
    bool full = false;  // the last output was, so more may wait inside
    while (in.pos < in.size || full) {
      ZSTD_outBuffer out{output.data(), output.size(), 0};
      const size_t before = in.pos;
      pending = ZSTD_decompressStream(context.get(), &out, &in);
      if (ZSTD_isError(pending)) {
        chunks.fail(before, fmt::format("damaged zstd data: {}", ZSTD_getErrorName(pending)));
      }
      if (out.pos > 0) use({output.data(), out.pos});
      full = out.pos == out.size && pending != 0;
    }
  }
  if (pending != 0) chunks.fail(0, "the zstd stream ends early: the file is truncated");
}

void stream_gzip(Chunks& chunks, const Use& use) {
  z_stream stream{};
  constexpr int kGzipWindow = 15 + 16;  // 32 KiB, gzip header
  HALO_CHECK(inflateInit2(&stream, kGzipWindow) == Z_OK, "gzip: no memory for a decoder");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> guard(&stream, inflateEnd);
  std::string output(kBufferSize, '\0');
  bool inside = true;  // no member has ended since the last one began; an empty file is no stream
  for (auto chunk = chunks.next(); !chunk.empty(); chunk = chunks.next()) {
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(chunk.data()));
    stream.avail_in = static_cast<uInt>(chunk.size());
    bool full = false;
    while (stream.avail_in > 0 || full) {
      const size_t before = chunk.size() - stream.avail_in;
      stream.next_out = reinterpret_cast<Bytef*>(output.data());
      stream.avail_out = static_cast<uInt>(output.size());
      inside = true;
      const int status = inflate(&stream, Z_NO_FLUSH);
      if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
        chunks.fail(before, fmt::format("damaged gzip data: {}",
                                        stream.msg ? stream.msg : "not a gzip stream"));
      }
      const size_t produced = output.size() - stream.avail_out;
      if (produced > 0) use({output.data(), produced});
      full = stream.avail_out == 0 && status != Z_STREAM_END;
      if (status == Z_STREAM_END) {
        inside = false;
        inflateReset(&stream);
      }
    }
  }
  if (inside) chunks.fail(0, "the gzip stream ends early: the file is truncated");
}

}  // namespace

void stream_file(const std::filesystem::path& path, const Use& use) {
  Chunks chunks(path);
  const auto suffix = path.extension();
  if (suffix == ".zst") {
    stream_zstd(chunks, use);
  } else if (suffix == ".gz") {
    stream_gzip(chunks, use);
  } else {
    for (auto chunk = chunks.next(); !chunk.empty(); chunk = chunks.next()) use(chunk);
  }
}

}  // namespace halo
