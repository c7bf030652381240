// Errors and checks. Everything a user can cause is an Error with one clear sentence; HALO_CHECK
// guards what the caller of a part must get right and stays on in release builds.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace halo {

// Wrong input: the sentence says what is wrong, where, and what would fix it. Exit code 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Wrong command-line usage. Exit code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

// The run was told to stop, saved its state and can be resumed. Exit code 3.
class Stopped : public Error {
 public:
  using Error::Error;
};

// A stage's gate was not passed. Exit code 4.
class GateFailed : public Error {
 public:
  using Error::Error;
};

// Untrusted bytes that are not what their format asks for.
class ParseError : public Error {
 public:
  // `offset` counts bytes from the start of `file`.
  ParseError(const std::string& file, uint64_t offset, const std::string& what)
      : Error(fmt::format("{}: byte {}: {}", file, offset, what)) {}
};

// throw_error("{}: no tensor '{}'", path, name)
template <class... Args>
[[noreturn]] void throw_error(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);
}  // namespace detail

}  // namespace halo

// HALO_CHECK(x.size(1) == d, "rms_norm: expected {} columns, got {}", d, x.size(1))
#define HALO_CHECK(condition, ...)                                                            \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      ::halo::detail::check_failed(__FILE__, __LINE__, #condition, fmt::format(__VA_ARGS__)); \
  } while (0)
