// Bytes of plain, zstd and gzip files through one small buffer.
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cctype>
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

// The bound on the memory of a zstd decoder, which keeps so much of what came before.
constexpr int kMaxWindowLog = 30;

// The window that a zstd frame asks for, by its first bytes (RFC 8878, 3.1.1.1); 0 if they do not
// say.
uint64_t frame_window(std::string_view header) {
  constexpr size_t kDescriptor = 4;  // behind the magic number
  const auto byte_at = [&](size_t i) -> uint64_t {
    return i < header.size() ? static_cast<unsigned char>(header[i]) : 0;
  };
  const uint64_t descriptor = byte_at(kDescriptor), next = byte_at(kDescriptor + 1);
  const bool is_single_segment = (descriptor >> 5 & 1) != 0;
  if (!is_single_segment) {
    const uint64_t base = uint64_t{1} << (10 + (next >> 3));
    return base + base / 8 * (next & 7);
  }
  // The window is the whole content, whose size stands behind the dictionary's number.
  const size_t dictionary_bytes = (size_t{1} << (descriptor & 3)) / 2;
  const size_t size_bytes = size_t{1} << (descriptor >> 6);
  uint64_t size = size_bytes == 2 ? 256 : 0;
  for (size_t i = 0; i < size_bytes; ++i)
    size += byte_at(kDescriptor + 1 + dictionary_bytes + i) << (8 * i);
  return size;
}

[[noreturn]] void fail_zstd(const Chunks& chunks, size_t position, size_t code,
                            std::string_view header) {
  if (ZSTD_getErrorCode(code) != ZSTD_error_frameParameter_windowTooLarge)
    chunks.fail(position, fmt::format("damaged zstd data: {}", ZSTD_getErrorName(code)));
  chunks.fail(position,
              fmt::format("its zstd frame needs a window of {} bytes, more than the {} allowed; "
                          "compress it anew without --long",
                          frame_window(header), uint64_t{1} << kMaxWindowLog));
}

void stream_zstd(Chunks& chunks, const Use& use) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   ZSTD_freeDCtx);
  HALO_CHECK(context != nullptr, "zstd: no memory for a decoder");
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  std::string output(kBufferSize, '\0');
  constexpr size_t kLongestHeader = 18;
  std::string header;  // of the frame, as far as it was read
  size_t pending = 0;  // 0 between frames
  bool is_empty = true;
  for (auto chunk = chunks.next(); !chunk.empty(); chunk = chunks.next()) {
    ZSTD_inBuffer in{chunk.data(), chunk.size(), 0};
    bool full = false;  // the last output was, so more may wait inside
    is_empty = false;
    while (in.pos < in.size || full) {
      ZSTD_outBuffer out{output.data(), output.size(), 0};
      const size_t before = in.pos;
      if (pending == 0) header.clear();
      header += chunk.substr(before, kLongestHeader - header.size());
      pending = ZSTD_decompressStream(context.get(), &out, &in);
      if (ZSTD_isError(pending)) fail_zstd(chunks, before, pending, header);
      if (out.pos > 0) use({output.data(), out.pos});
      full = out.pos == out.size && pending != 0;
    }
  }
  if (pending != 0 || is_empty) chunks.fail(0, "the zstd stream ends early: the file is truncated");
}

void stream_gzip(Chunks& chunks, const Use& use) {
  z_stream stream{};
  constexpr int kGzipWindow = 15 + 16;  // 32 KiB, gzip header
  HALO_CHECK(inflateInit2(&stream, kGzipWindow) == Z_OK, "gzip: no memory for a decoder");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> guard(&stream, inflateEnd);
  std::string output(kBufferSize, '\0');
  bool inside = true;  // no member has ended since the last one began; an empty file is no stream
  // Blocks of tapes and of some writers end in zeros.
  const auto skip_padding = [&] {
    while (!inside && stream.avail_in > 0 && *stream.next_in == 0) {
      ++stream.next_in;
      --stream.avail_in;
    }
  };
  for (auto chunk = chunks.next(); !chunk.empty(); chunk = chunks.next()) {
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(chunk.data()));
    stream.avail_in = static_cast<uInt>(chunk.size());
    bool full = false;
    skip_padding();
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
        skip_padding();
      }
    }
  }
  if (inside) chunks.fail(0, "the gzip stream ends early: the file is truncated");
}

}  // namespace

void stream_file(const std::filesystem::path& path, const Use& use) {
  Chunks chunks(path);
  std::string suffix = path.extension().string();
  std::ranges::transform(suffix, suffix.begin(), [](unsigned char c) { return std::tolower(c); });
  if (suffix == ".zst" || suffix == ".zstd") {
    stream_zstd(chunks, use);
  } else if (suffix == ".gz") {
    stream_gzip(chunks, use);
  } else {
    for (auto chunk = chunks.next(); !chunk.empty(); chunk = chunks.next()) use(chunk);
  }
}

}  // namespace halo
