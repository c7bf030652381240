#include "halo/train/parameter_file.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/formats/safetensors.h"

namespace halo {
namespace {

std::string header_of(const ParameterFile& file) {
  std::vector<TensorSpec> tensors;
  for (const ParameterSpec& spec : file.parameters) {
    tensors.push_back({spec.name, file.dtype, spec.shape});
  }
  return safetensors_header(tensors, file.path.string());
}

// A file that is written to anywhere.
class OpenFile {
 public:
  OpenFile(const std::filesystem::path& path, int flags)
      : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666)) {
    if (fd_ < 0) fail("open");
  }
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(const OpenFile&) = delete;

  void write(const void* bytes, uint64_t count, uint64_t at) {
    const auto* next = static_cast<const char*>(bytes);
    while (count > 0) {
      const ssize_t written = ::pwrite(fd_, next, count, static_cast<off_t>(at));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail("write");
      next += written;
      at += written;
      count -= written;
    }
  }
  void resize(uint64_t bytes) {
    if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) fail("resize");
  }
  void sync() {
    if (::fsync(fd_) != 0) fail("sync");
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw_error("{}: cannot {}: {}", path_.string(), what, std::strerror(errno));
  }

  const std::filesystem::path path_;
  const int fd_;
};

}  // namespace

uint64_t bytes_of(const ParameterFile& file) {
  return num_parameters(file.parameters) * dtype_size(file.dtype);
}

void make_file(const ParameterFile& file) {
  const std::string header = header_of(file);
  OpenFile out(file.path, O_CREAT | O_TRUNC);
  out.write(header.data(), header.size(), 0);
  out.resize(header.size() + bytes_of(file));
}

void write_kept(const ParameterFile& file, const ParameterStore& store, const ReadKept& values,
                const ParameterStore* rest) {
  OpenFile out(file.path, 0);
  uint64_t begin = header_of(file).size();
  const auto write = [&](const ParameterSpec& spec, const at::Tensor& tensor, int64_t first) {
    crash_point("checkpoint.mid_write");
    HALO_CHECK(tensor.is_contiguous() && tensor.scalar_type() == to_scalar_type(file.dtype),
               "{}: '{}' is {}, the file's tensors are {}", file.path.string(), spec.name,
               at::toString(tensor.scalar_type()), dtype_name(file.dtype));
    out.write(tensor.const_data_ptr(), tensor.nbytes(), begin + first * dtype_size(file.dtype));
  };
  for (const ParameterSpec& spec : file.parameters) {
    if (store.contains(spec.name)) {
      const ParameterStore::Piece piece = store.kept_piece(spec);
      if (piece.size > 0) write(spec, values({piece.in_arena, piece.size}), piece.in_parameter);
    } else if (rest) {
      write(spec, rest->value(spec.name), 0);
    }
    begin += num_parameters({spec}) * dtype_size(file.dtype);
  }
  out.sync();
}

void load_kept(const std::filesystem::path& path, const ParameterStore& store,
               const at::Tensor& arena) {
  const SafetensorsFile file(path);
  if (file.tensors().size() != store.specs().size()) {
    throw_error("{}: has {} tensors, this model trains {}", path.string(), file.tensors().size(),
                store.specs().size());
  }
  for (const ParameterSpec& spec : store.specs()) {
    const TensorView& tensor = file.get(spec.name);
    if (tensor.shape != spec.shape || tensor.dtype != DType::kF32) {
      throw_error("{}: tensor '{}' is {} [{}], expected F32 [{}]", path.string(), spec.name,
                  dtype_name(tensor.dtype), fmt::join(tensor.shape, ", "),
                  fmt::join(spec.shape, ", "));
    }
    const ParameterStore::Piece piece = store.kept_piece(spec);
    if (piece.size == 0) continue;
    const at::Tensor source =
        at::from_blob(const_cast<std::byte*>(tensor.bytes.data()) + 4 * piece.in_parameter,
                      {piece.size}, at::kFloat);
    arena.narrow(0, piece.in_arena, piece.size).copy_(source);
  }
}

}  // namespace halo
