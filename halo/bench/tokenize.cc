// Speed of encoding, reading and loading left out.
#include <chrono>

#include "halo/base/check.h"
#include "halo/bench/bench.h"
#include "halo/data/readers.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

json::object bench_tokenize(const TokenizeBenchArgs& args) {
  const Tokenizer tokenizer(std::filesystem::path(args.model) / "tokenizer.json");
  std::vector<std::string> texts;
  uint64_t bytes = 0;
  read_documents({args.inputs.begin(), args.inputs.end()}, [&](Document document) {
    bytes += document.text.size();
    texts.push_back(std::move(document.text));
  });
  if (bytes == 0) throw_error("bench tokenize: there is no text in the inputs");
  const auto begin = std::chrono::steady_clock::now();
  uint64_t tokens = 0;
  for (const std::string& text : texts) tokens += tokenizer.encode(text).size();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return {{"documents", texts.size()},
          {"bytes", bytes},
          {"tokens", tokens},
          {"seconds", seconds.count()},
          {"megabytes_per_second", static_cast<double>(bytes) / 1e6 / seconds.count()}};
}

}  // namespace halo
