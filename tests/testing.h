// What tests of every part share: a folder that goes away, and what a call complains about.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "halo/base/check.h"

namespace halo::test {

// A new folder, gone at the end. The child of a "threadsafe" death test runs the program anew up to
// its statement: there it is the parent's folder, if the parent shares it.
class Folder {
 public:
  Folder() {
    if (const char* parents = getenv(kVariable)) {
      path_ = parents;
      return;
    }
    std::string pattern = testing::TempDir() + "halo_test_XXXXXX";
    path_ = mkdtemp(pattern.data());
    owner_ = true;
  }
  ~Folder() {
    if (!owner_) return;
    if (shared_) unsetenv(kVariable);
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void share_with_children() {
    if (!owner_) return;
    setenv(kVariable, path_.c_str(), 1);
    shared_ = true;
  }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  static constexpr const char* kVariable = "HALO_TEST_FOLDER";
  std::filesystem::path path_;
  bool owner_ = false, shared_ = false;
};

// The message of the Error that `call` throws.
template <class F>
std::string error_of(F call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace halo::test
