// Runs a fuzz target over kept inputs, without libFuzzer: replay FOLDER|FILE...
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

#include "halo/base/files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

namespace fs = std::filesystem;

int replay(const fs::path& path) {
  if (fs::is_directory(path)) {
    int count = 0;
    for (const auto& entry : fs::directory_iterator(path)) count += replay(entry.path());
    return count;
  }
  const std::string bytes = halo::read_file(path);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  int count = 0;
  try {
    for (int i = 1; i < argc; ++i) count += replay(argv[i]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: after %d inputs: %s\n", argv[0], count, error.what());
    return 1;
  }
  std::printf("%d inputs\n", count);
  return count > 0 ? 0 : 1;
}
