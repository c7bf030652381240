#include "halo/train/arena_file.h"

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

std::vector<TensorSpec> tensor_specs(const ParameterStore& store) {
  std::vector<TensorSpec> specs;
  for (const ParameterSpec& spec : store.specs()) {
    specs.push_back({spec.name, DType::kF32, spec.shape});
  }
  return specs;
}

// A file that is there, opened to be written to anywhere.
class OpenFile {
 public:
  explicit OpenFile(const std::filesystem::path& path)
      : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CLOEXEC)) {
    if (fd_ < 0) fail("open");
  }
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(const OpenFile&) = delete;

  void write(const void* bytes, int64_t count, int64_t at) {
    const auto* next = static_cast<const char*>(bytes);
    while (count > 0) {
      const ssize_t written = ::pwrite(fd_, next, count, at);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail("write");
      next += written;
      at += written;
      count -= written;
    }
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

void write_arena(const std::filesystem::path& path, ParameterStore& store,
                 const at::Tensor& arena) {
  const at::Tensor host = arena.to(at::kCPU);
  std::vector<TensorView> views;
  for (const ParameterSpec& spec : store.specs()) {
    views.push_back(to_view(spec.name, store.view(host, spec.name)));
  }
  write_safetensors(path, views);
}

void make_arena_file(const std::filesystem::path& path, const ParameterStore& store) {
  const std::vector<TensorSpec> specs = tensor_specs(store);
  const std::string header = safetensors_header(specs, path.string());
  write_file(path, header);
  std::error_code error;
  std::filesystem::resize_file(path, header.size() + 4 * num_parameters(store.specs()), error);
  if (error) throw_error("{}: cannot resize: {}", path.string(), error.message());
}

void write_kept(const std::filesystem::path& path, const ParameterStore& store,
                const at::Tensor& arena) {
  const at::Tensor host = arena.to(at::kCPU);
  const float* data = host.const_data_ptr<float>();
  OpenFile file(path);
  auto begin = static_cast<int64_t>(safetensors_header(tensor_specs(store), path.string()).size());
  for (const ParameterSpec& spec : store.specs()) {
    const ParameterStore::Piece piece = store.kept_piece(spec);
    if (piece.size > 0) {
      file.write(data + piece.in_arena, 4 * piece.size, begin + 4 * piece.in_parameter);
    }
    begin += 4 * num_parameters({spec});
  }
  file.sync();
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
