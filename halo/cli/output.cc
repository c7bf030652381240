#include "halo/cli/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <iostream>
#include <system_error>

namespace halo {

CheckedOutput::CheckedOutput() : buffer_(size_t{1} << 16, '\0'), before_(std::cout.rdbuf(this)) {
  setp(buffer_.data(), buffer_.data() + buffer_.size());
  std::cout.exceptions(std::ios::badbit);  // what this throws goes on to who prints
  std::cerr.tie(nullptr);                  // or each message would write this first
  std::signal(SIGPIPE, SIG_IGN);           // a closed pipe is an error of the write
}

CheckedOutput::~CheckedOutput() {
  std::cout.exceptions(std::ios::goodbit);
  std::cout.rdbuf(before_);
}

CheckedOutput::int_type CheckedOutput::overflow(int_type c) {
  sync();
  if (!traits_type::eq_int_type(c, traits_type::eof())) {
    *pptr() = traits_type::to_char_type(c);
    pbump(1);
  }
  return traits_type::not_eof(c);
}

int CheckedOutput::sync() {
  const char* at = pbase();
  const char* const end = pptr();
  setp(buffer_.data(), buffer_.data() + buffer_.size());  // written or lost
  while (at < end) {
    const ssize_t written = ::write(STDOUT_FILENO, at, static_cast<size_t>(end - at));
    if (written >= 0) {
      at += written;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EPIPE) throw OutputClosed("standard output: nobody reads it");
    throw_error("cannot write to standard output: {}", std::generic_category().message(errno));
  }
  return 0;
}

void open_standard_files() {
  // The lowest free number is taken, so each is the one that was closed.
  for (const int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(number, F_GETFD) != -1) continue;
    if (open("/dev/null", number == STDERR_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

}  // namespace halo
