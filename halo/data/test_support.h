// What the tests of this part share: a folder that goes away, a small tokenizer, an error's text.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo::testing_support {

class Folder {
 public:
  Folder() {
    std::string pattern = testing::TempDir() + "halo_data_XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline const std::string& tokenizer_json() {
  static const std::string text = train_bpe(
      {"the secret number of the rain is in the plain, and what is the number of the secret rain? "
       "The rain in the plain is plain. What is that? The secret is in the number of the rain."},
      290, {"<|endoftext|>", "<|im_start|>"});
  return text;
}

inline const Tokenizer& tokenizer() {
  static const Tokenizer made(tokenizer_json(), "tokenizer.json");
  return made;
}

// What `f` complains about; empty where it does not.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace halo::testing_support
