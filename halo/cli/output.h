// Standard output that is checked: what a command prints arrives, or the command fails.
#pragma once

#include <streambuf>
#include <string>

#include "halo/base/check.h"

namespace halo {

// Nobody reads standard output any more. Exit code 1, and nothing to say about it.
class OutputClosed : public Error {
 public:
  using Error::Error;
};

// What std::cout writes to as long as this lives. A write that fails is an Error, thrown by the
// statement that prints, or an OutputClosed if the reader of a pipe is gone. What is not flushed at
// the end is lost.
class CheckedOutput : public std::streambuf {
 public:
  CheckedOutput();
  ~CheckedOutput() override;

 protected:
  int_type overflow(int_type c) override;
  int sync() override;

 private:
  std::string buffer_;
  std::streambuf* before_;
};

// Opens what was closed of standard input, output and error, so that no file of ours takes their
// numbers: nothing can be read there, and to write to standard output stays an error.
void open_standard_files();

}  // namespace halo
