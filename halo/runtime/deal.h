// Independent pieces of work that ranks deal among themselves. All of them get what came of each,
// so that nothing depends on how many there are.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "halo/runtime/communicator.h"

namespace halo {

// Whether this rank does the piece.
inline bool does_piece(const Communicator& ranks, int64_t piece) {
  return piece % ranks.size() == ranks.rank();
}

// What `work` gives of each of so many pieces, in their order, on every rank; however long that
// takes. Called by all ranks.
std::vector<std::string> deal(Communicator& ranks, int64_t pieces,
                              const std::function<std::string(int64_t piece)>& work);

// Runs what fails on every rank or on none: the first one says why, and the others end with it.
template <class Work>
auto together(Communicator& ranks, Work work) {
  try {
    return work();
  } catch (const Error&) {
    if (!ranks.is_first()) ranks.wait();
    throw;
  }
}

// Values as bytes, which ranks on machines of one kind tell each other.
class Packer {
 public:
  Packer& add(double value);
  Packer& add(int64_t value);
  Packer& add(const std::string& text);
  Packer& add(const std::vector<double>& values);
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// They again, in the same order; an Error where there is less.
class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : bytes_(bytes) {}
  double number();
  int64_t integer();
  std::string text();
  std::vector<double> numbers();

 private:
  void read(void* to, size_t count);

  std::string_view bytes_;  // that are left
};

}  // namespace halo
