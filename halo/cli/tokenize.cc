// halo tokenize: {"text"} a line -> {"ids"} a line, and the other way.
#include <fstream>
#include <iostream>

#include "halo/base/json.h"
#include "halo/cli/commands.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {
namespace {

struct Args {
  std::string model, jsonl;
  bool decode = false, skip_special = false, add_special = false;
};

json::object convert_line(const Tokenizer& tokenizer, const json::object& line, const Args& args,
                          const std::string& where) {
  if (!args.decode) {
    const auto text = json_get<std::string>(line, "text", where);
    return {{"ids", json::value_from(tokenizer.encode(text, args.add_special))}};
  }
  std::vector<int64_t> ids;
  for (const json::value& id : json_get<json::array>(line, "ids", where)) {
    if (!id.is_int64() || id.as_int64() < 0 || id.as_int64() >= tokenizer.vocab_size()) {
      throw_error("{}: {} is no token id below {}", where, json::serialize(id),
                  tokenizer.vocab_size());
    }
    ids.push_back(id.as_int64());
  }
  return {{"text", tokenizer.decode(ids, args.skip_special)}};
}

void run(const Args& args) {
  const Tokenizer tokenizer(std::filesystem::path(args.model) / "tokenizer.json");
  std::ifstream file(args.jsonl);
  if (!file) throw_error("{}: cannot be read", args.jsonl);
  std::string line;
  for (int64_t number = 1; std::getline(file, line); ++number) {
    const std::string where = fmt::format("{}:{}", args.jsonl, number);
    const json::value value = parse_json(line, where);
    if (!value.is_object()) throw_error("{}: expected a JSON object", where);
    std::cout << json::serialize(convert_line(tokenizer, value.as_object(), args, where)) << "\n";
  }
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand("tokenize", "Text to token ids, a JSON object a line");
  command->add_option("model", args->model, "folder with tokenizer.json")->required();
  command->add_option("--jsonl", args->jsonl, "file of {\"text\"} (with --decode: {\"ids\"}) lines")
      ->required();
  command->add_flag("--decode", args->decode, "ids to text");
  command->add_flag("--add-special", args->add_special,
                    "put the tokenizer's special tokens around the text, <s> for example");
  command->add_flag("--skip-special", args->skip_special,
                    "with --decode: leave special tokens out");
  command->footer("Example: halo tokenize demo/teacher --jsonl texts.jsonl");
  command->callback([args] { run(*args); });
}

}  // namespace halo
