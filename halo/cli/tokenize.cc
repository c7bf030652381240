// halo tokenize: a text, or {"text"} a line -> {"ids"} a line, and the other way; {"messages"} ->
// {"text"}.
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <optional>

#include "halo/base/json.h"
#include "halo/base/progress.h"
#include "halo/base/text.h"
#include "halo/chat/chat_template.h"
#include "halo/cli/commands.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {
namespace {

struct Args {
  std::string model, text, jsonl;
  bool decode = false, skip_special = false, add_special = false, chat = false;
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

// The conversation of a line as text; keys that we do not know are variables of the template.
json::object render_line(const ModelChat& chat, json::object line, const std::string& where) {
  ChatOptions options;
  const auto messages = json_get<json::array>(line, "messages", where);
  options.add_generation_prompt = json_get_or(line, "add_generation_prompt", false, where);
  for (const auto& [key, value] :
       {std::pair{"tools", &options.tools}, std::pair{"documents", &options.documents}}) {
    const json::value* given = line.if_contains(key);
    if (given && !given->is_null()) *value = json_get<json::array>(line, key, where);
  }
  for (const char* key : {"messages", "add_generation_prompt", "tools", "documents"}) {
    line.erase(key);
  }
  options.variables = std::move(line);
  return {{"text", chat.render(messages, std::move(options))}};
}

// convert(object, where) for each line of the file. Integers that no 64 bits hold are refused:
// templates print what they are given.
template <class Convert>
void convert_lines(const std::string& path, Convert convert) {
  std::ifstream file(path);
  if (!file) throw_error("{}: cannot be read", path);
  std::optional<Progress> progress;
  if (isatty(STDOUT_FILENO) == 0) progress.emplace("tokenize");  // else the output says it
  std::string line;
  for (int64_t number = 1; std::getline(file, line); ++number) {
    const std::string where = fmt::format("{}:{}", path, number);
    const std::string_view text = number == 1 ? without_byte_order_mark(line, path) : line;
    json::value value = parse_json(text, where, 0, HugeIntegers::kRefused);
    if (!value.is_object()) throw_error("{}: expected a JSON object", where);
    std::cout << json::serialize(convert(std::move(value.as_object()), where)) << "\n";
    if (progress) progress->update(number, fmt::format("{} lines", number));
  }
}

void run(const Args& args) {
  if (args.chat) {
    const ModelChat chat(args.model);
    return convert_lines(args.jsonl, [&](json::object line, const std::string& where) {
      try {
        return render_line(chat, std::move(line), where);
      } catch (const Error& error) {
        const std::string_view what = error.what();
        if (what.starts_with(where)) throw;
        throw_error("{}: {}", where, what);
      }
    });
  }
  const Tokenizer tokenizer(std::filesystem::path(args.model) / "tokenizer.json");
  if (args.jsonl.empty()) {
    std::cout << json::serialize(convert_line(tokenizer, {{"text", args.text}}, args, "")) << "\n";
    return;
  }
  convert_lines(args.jsonl, [&](const json::object& line, const std::string& where) {
    return convert_line(tokenizer, line, args, where);
  });
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand("tokenize", "Text to token ids, a JSON object a line");
  command
      ->add_option("model", args->model,
                   "folder with tokenizer.json (with --chat: tokenizer_config.json)")
      ->required();
  CLI::Option* text = command->add_option("text", args->text, "the text; without it --jsonl");
  command->add_option("--jsonl", args->jsonl,
                      "file of {\"text\"} (--decode: {\"ids\"}, --chat: {\"messages\"}) lines");
  CLI::Option* decode = command->add_flag("--decode", args->decode, "ids to text");
  command->add_flag("--add-special", args->add_special,
                    "put the tokenizer's special tokens around the text, <s> for example");
  command->add_flag("--skip-special", args->skip_special,
                    "with --decode: leave special tokens out");
  command
      ->add_flag("--chat", args->chat,
                 "conversations to text by the model's chat template: {\"messages\", \"tools\"?, "
                 "\"documents\"?, \"add_generation_prompt\"?, variables of the template} a line")
      ->excludes(decode);
  command->footer(
      "Examples: halo tokenize demo/teacher \"It was\"\n"
      "          halo tokenize demo/teacher --jsonl texts.jsonl\n"
      "          halo tokenize MODEL --chat --jsonl chats.jsonl > texts.jsonl");
  command->callback([args, text] {
    if ((text->count() != 0) == !args->jsonl.empty())
      throw UsageError("halo tokenize takes a text or --jsonl FILE, one of them");
    if (text->count() != 0 && (args->decode || args->chat))
      throw UsageError("halo tokenize: --decode and --chat go with --jsonl FILE");
    run(*args);
  });
}

}  // namespace halo
