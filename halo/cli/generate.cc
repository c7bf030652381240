// halo generate: streaming text from a model.
#include "halo/engine/generate.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <iterator>
#include <optional>

#include "halo/base/files.h"
#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/chat/chat_template.h"
#include "halo/cli/commands.h"
#include "halo/data/pack.h"
#include "halo/engine/stop_text.h"
#include "halo/pipeline/run_folder.h"
#include "halo/runtime/machine.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {
namespace {

struct Args {
  std::string model, file;
  std::optional<std::string> prompt;
  std::vector<std::string> stop;
  bool chat = false;
  GenerateArgs generate;
  MachineRecipe machine;
};

// The prompt as given, or of the file, or of standard input, there without the newline that ends
// its last line.
std::string read_prompt(const Args& args) {
  if (args.prompt && !args.file.empty()) throw_error("give a prompt or --file, not both");
  if (args.prompt) return *args.prompt;
  std::string text;
  if (!args.file.empty() && args.file != "-") {
    text = read_file(args.file);
  } else {
    if (args.file.empty() && isatty(STDIN_FILENO)) {
      throw_error("give a prompt, --file FILE, or text on standard input");
    }
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  }
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

// Where a chat begins is its template's business.
std::vector<int64_t> encode_prompt(const Args& args, const std::string& text,
                                   const Tokenizer& tokenizer,
                                   const std::filesystem::path& tokenizer_path) {
  if (args.chat) {
    json::array messages;
    messages.push_back(json::object{{"role", "user"}, {"content", text}});
    ChatOptions options;
    options.add_generation_prompt = true;
    return tokenizer.encode(ModelChat(args.model).render(messages, std::move(options)));
  }
  std::vector<int64_t> prompt = tokenizer.encode(text);
  const std::optional<int64_t> begin = document_begin(tokenizer, tokenizer_path);
  if (begin && (prompt.empty() || prompt.front() != *begin)) prompt.insert(prompt.begin(), *begin);
  return prompt;
}

void check_prompt(const std::vector<int64_t>& prompt, const Tokenizer& tokenizer,
                  int64_t vocab_size) {
  if (prompt.empty()) throw_error("the prompt is empty");
  // Tokenizers may have tokens that were added without the model's knowing.
  for (const int64_t id : prompt) {
    if (id >= vocab_size)
      throw_error("the prompt holds '{}', token {}, for which the model has no row: its are {}",
                  tokenizer.token_bytes(id), id, vocab_size);
  }
}

using Clock = std::chrono::steady_clock;

// "generate: 5 + 128 tokens, first after 0.12 s, then 41.2 tokens/s; ended at --max-tokens"
void print_rate(size_t prompt, int64_t tokens, const Clock::time_point& start,
                const Clock::time_point& first, const char* ended) {
  const std::chrono::duration<double> waited = first - start, rest = Clock::now() - first;
  std::string rate;
  if (tokens > 1) rate = fmt::format(", then {:.1f} tokens/s", double(tokens - 1) / rest.count());
  fmt::print(stderr, "generate: {} + {} tokens, the first after {:.2f} s{}; ended {}\n", prompt,
             tokens, waited.count(), rate, ended);
}

void run(const Args& args) {
  at::NoGradGuard no_grad;
  const std::string text = read_prompt(args);
  StopText stop(args.stop);
  if (const std::string why = why_stale(args.model); !why.empty()) warn(why);
  const Machine machine = open_machine(args.machine);
  const Model model =
      load_model(args.model, ParameterStore::Use::kFrozen, machine.compute, machine.device);
  const std::filesystem::path tokenizer_path = std::filesystem::path(args.model) / "tokenizer.json";
  const Tokenizer tokenizer(tokenizer_path);
  const std::vector<int64_t> prompt = encode_prompt(args, text, tokenizer, tokenizer_path);
  check_prompt(prompt, tokenizer, model.config.vocab_size);
  EngineOptions options;
  options.kernels = machine.kernels;
  Engine engine(std::make_shared<DecoderWeights>(model.weights), options);
  GenerateArgs generate_args = args.generate;
  generate_args.stop_ids = read_end_tokens(args.model, model.config);
  generate_args.ended = [&](size_t) { return stop.stopped(); };

  StreamDecoder stream(tokenizer);
  std::optional<Progress> waiting(fmt::format("prompt of {} tokens", prompt.size()));
  const Clock::time_point start = Clock::now();
  Clock::time_point first = start;
  int64_t tokens = 0, last = -1;
  generate(engine, {prompt}, generate_args, [&](const GenerateStep& step) {
    if (tokens++ == 0) {
      first = Clock::now();
      waiting.reset();
      if (!args.chat) std::cout << text;
    }
    last = step.tokens.front();
    std::cout << stop.push(stream.push(last)) << std::flush;
  });
  std::cout << stop.push(stream.finish()) << stop.finish() << "\n" << std::flush;
  const bool end_token = std::ranges::count(generate_args.stop_ids, last) > 0;
  print_rate(prompt.size(), tokens, start, first,
             stop.stopped() ? "at a stop string"
             : end_token    ? "by the end token"
                            : "at --max-tokens");
}

}  // namespace

void add_generate(CLI::App& app) {
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand("generate", "Continue a text or answer a message");
  command->add_option("model", args->model, "Hugging Face directory")->required();
  command->add_option("prompt", args->prompt,
                      "text to continue; without it and --file: standard input");
  command->add_option("--file", args->file, "file with the text; -: standard input");
  command->add_flag("--chat", args->chat,
                    "the text is a user's message: the model's chat template is put around it, and "
                    "the answer alone is printed");
  command->add_option("--stop", args->stop, "end before this text (may be given several times)")
      ->allow_extra_args(false);
  add_options(*command, args->generate);
  add_options(*command, args->machine);
  command->footer("Example: halo generate runs/demo/model \"It was\" --temperature 0.8");
  command->callback([args] { run(*args); });
}

}  // namespace halo
