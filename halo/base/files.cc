// POSIX calls behind files.h; every failure becomes an Error with the system's reason.
#include "halo/base/files.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <system_error>
#include <thread>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/progress.h"

namespace halo {
namespace {

[[noreturn]] void throw_system(std::string_view operation, const std::filesystem::path& path) {
  throw_error("cannot {} {}: {}", operation, path.string(), std::generic_category().message(errno));
}

// Owns a descriptor opened for reading.
class ReadDescriptor {
 public:
  explicit ReadDescriptor(const std::filesystem::path& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) throw_system("open", path);
  }
  ~ReadDescriptor() { close(fd_); }
  ReadDescriptor(const ReadDescriptor&) = delete;
  ReadDescriptor& operator=(const ReadDescriptor&) = delete;
  int get() const { return fd_; }

  // Bytes of the regular file behind it.
  uint64_t size(const std::filesystem::path& path) const {
    struct stat status;
    if (fstat(fd_, &status) != 0) throw_system("stat", path);
    if (!S_ISREG(status.st_mode)) throw_error("{} is not a regular file", path.string());
    return static_cast<uint64_t>(status.st_size);
  }

 private:
  int fd_;
};

}  // namespace

namespace {

// At a stop other threads may still be writing into it, for as long as they need no new file.
void remove_at_stop(const std::filesystem::path& path) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (!error) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace

TemporaryPath::TemporaryPath(std::filesystem::path path) : path_(std::move(path)) {
  at_stop_.emplace([this] { remove_at_stop(path_); });
}

TemporaryPath::~TemporaryPath() {
  if (!at_stop_) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void TemporaryPath::leave() {
  at_stop_.reset();
}

void TemporaryPath::rename_to(const std::filesystem::path& to) {
  // First, so that a stop does not empty a folder that is being put in its place.
  at_stop_.reset();
  if (rename(path_.c_str(), to.c_str()) == 0) return;
  const int reason = errno;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
  errno = reason;
  throw_system("rename to", to);
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code error;
  const auto status = std::filesystem::status(path_, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw_error("cannot write {}: it is {}", path_.string(),
                std::filesystem::is_directory(status) ? "a folder" : "no regular file");
  }
  const std::filesystem::path temporary = path_.string() + ".tmp";
  temporary_.emplace(temporary);  // first: a stop may come before the next line is done
  fd_ = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ >= 0) return;
  const int reason = errno;
  temporary_->leave();
  errno = reason;
  throw_system("create", temporary);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  HALO_CHECK(fd_ >= 0, "{}: written to after commit", path_.string());
  crash_point("file.before_write");
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      throw_system("write", temporary_->path());
    }
    bytes = bytes.subspan(written);
  }
}

void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void AtomicFile::commit() {
  HALO_CHECK(fd_ >= 0, "{}: committed twice", path_.string());
  crash_point("file.before_sync");
  if (fsync(fd_) != 0) throw_system("sync", temporary_->path());
  if (close(std::exchange(fd_, -1)) != 0) throw_system("close", temporary_->path());
  crash_point("file.before_rename");
  temporary_->rename_to(path_);
  crash_point("file.after_rename");
  sync_directory(path_.parent_path());
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_file(const std::filesystem::path& path, uint64_t max_bytes) {
  const ReadDescriptor file(path);
  const uint64_t size = file.size(path);
  if (size > max_bytes)
    throw_error("{} has {} bytes, more than the {} allowed here", path.string(), size, max_bytes);
  std::string text(size, '\0');
  for (uint64_t done = 0; done < size;) {
    const ssize_t got = read(file.get(), text.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_system("read", path);
    if (got == 0) throw_error("{} shrank while it was read", path.string());
    done += got;
  }
  return text;
}

void copy_synced(const std::filesystem::path& from, const std::filesystem::path& to) {
  const MappedFile source(from);
  AtomicFile copy(to);
  copy.write(source.bytes());
  copy.commit();
}

void sync_directory(const std::filesystem::path& path) {
  const std::filesystem::path directory = path.empty() ? "." : path;
  const ReadDescriptor file(directory);
  // EINVAL: a file system that cannot sync folders.
  if (fsync(file.get()) != 0 && errno != EINVAL) throw_system("sync", directory);
}

void commit_directory(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path&)>& fill) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_directory(status)) {
    throw_error("cannot make the folder {}: there is something else", path.string());
  }
  TemporaryPath temporary(path.string() + ".tmp");
  std::filesystem::remove_all(temporary.path(), error);
  if (!error) std::filesystem::create_directories(temporary.path(), error);
  if (error) {
    throw_error("cannot make the folder {}: {}", temporary.path().string(), error.message());
  }
  fill(temporary.path());
  sync_directory(temporary.path());
  crash_point("directory.before_rename");
  std::filesystem::remove_all(path, error);
  if (error) throw_error("cannot replace the folder {}: {}", path.string(), error.message());
  temporary.rename_to(path);
  sync_directory(path.parent_path());
}

void commit_new_directory(const std::filesystem::path& path,
                          const std::function<void(const std::filesystem::path&)>& fill) {
  std::error_code error;
  if (std::filesystem::exists(path, error) && !std::filesystem::is_empty(path, error)) {
    throw_error("{} is not empty; name another --out", path.string());
  }
  std::filesystem::path target = path.lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "out/"
  commit_directory(target, fill);
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const ReadDescriptor file(path);
  size_ = file.size(path);
  if (size_ == 0) return;  // mmap refuses empty maps
  void* data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, file.get(), 0);
  if (data == MAP_FAILED) throw_system("map", path);
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::allow_private_writes() {
  if (data_ == nullptr) return;
  if (mprotect(const_cast<std::byte*>(data_), size_, PROT_READ | PROT_WRITE) != 0)
    throw_system("make a private map of", path_);
}

void release_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size()) / page * page;
  // Where the advice is not taken only memory is lost.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string hash_hex(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string hash_file(const std::filesystem::path& path) {
  const Progress phase(fmt::format("hashing {}", path.string()));
  return hash_hex(MappedFile(path).bytes());
}

void crash_point(std::string_view name) {
  // The environment is read once; the count is the one mutable static of this part, because "the
  // K-th time" is about the whole process.
  static const std::string target = [] {
    const char* text = std::getenv("HALO_CRASH_AT");
    return std::string(text ? text : "");
  }();
  if (target.empty()) [[likely]]
    return;
  static std::atomic<int64_t> seen = 0;
  const size_t colon = target.find(':');
  if (std::string_view(target).substr(0, colon) != name) return;
  const int64_t wanted = colon == std::string::npos ? 1 : std::atoll(target.c_str() + colon + 1);
  if (++seen == wanted) kill(getpid(), SIGKILL);
}

}  // namespace halo
