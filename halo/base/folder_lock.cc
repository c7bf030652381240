// A lock of a folder: a file in it that its owner has locked.
#include "halo/base/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/files.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLock = "lock";

// Who wrote a lock file: "process 4711 on host".
std::string owner_of(const fs::path& lock) {
  std::error_code error;
  if (!fs::exists(lock, error)) return "a process that has just ended";
  std::string text = read_file(lock);
  while (text.ends_with('\n')) text.pop_back();
  return text.empty() ? "a process that has just begun" : text;
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "this host";
}

// Whether `path` is still the file behind the descriptor: its owner removes it at the end.
bool is_same_file(int fd, const fs::path& path) {
  struct stat ours = {}, there = {};
  return ::fstat(fd, &ours) == 0 && ::stat(path.c_str(), &there) == 0 &&
         ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

}  // namespace

FolderLock::FolderLock(fs::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  made_folder_ = fs::create_directories(folder_, error);
  if (error) throw_error("{}: cannot make the folder: {}", folder_.string(), error.message());
  const fs::path lock = folder_ / kLock;
  while (fd_ < 0) {
    fd_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) throw_error("{}: cannot open: {}", lock.string(), std::strerror(errno));
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const int reason = errno;
      ::close(fd_);
      if (reason != EWOULDBLOCK) {
        throw_error("{}: cannot lock: {}", lock.string(), std::strerror(reason));
      }
      throw_error("{}: {} works in this folder; wait for its end, stop it, or use another folder",
                  folder_.string(), owner_of(lock));
    }
    if (is_same_file(fd_, lock)) break;
    ::close(std::exchange(fd_, -1));
  }
  const std::string text = fmt::format("process {} on {}\n", ::getpid(), host_name());
  if (::ftruncate(fd_, 0) != 0 || ::write(fd_, text.data(), text.size()) < 0) {
    throw_error("{}: cannot write: {}", lock.string(), std::strerror(errno));
  }
}

FolderLock::~FolderLock() {
  std::error_code ignored;
  fs::remove(folder_ / kLock, ignored);
  if (made_folder_) ::rmdir(folder_.c_str());  // fails where there is something in it
  ::close(fd_);
}

std::optional<std::string> FolderLock::holder(const fs::path& folder) {
  const fs::path lock = folder / kLock;
  const int fd = ::open(lock.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  const bool held = ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(fd);
  return held ? std::optional(owner_of(lock)) : std::nullopt;
}

}  // namespace halo
