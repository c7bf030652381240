// halo generate: streaming text from a model.
#include "halo/engine/generate.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <optional>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/cli/commands.h"
#include "halo/cli/generate_lines.h"
#include "halo/cli/generation.h"

namespace halo {
namespace {

struct Args {
  std::string model, file, lines;
  std::optional<std::string> prompt;
  std::vector<std::string> stop;
  bool chat = false;
  int64_t n = 1, logprobs = -1;
  GenerateArgs generate;
  EngineRecipe engine;
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

// "generate: 5 + 128 tokens, the first after 0.12 s, then 41.2 tokens/s; ended at --max-tokens"
void print_rate(const Finish& finish, bool at_stop_string) {
  const int64_t tokens = finish.completion_tokens;
  std::string rate;
  if (tokens > 1) {
    rate = fmt::format(", then {:.1f} tokens/s",
                       static_cast<double>(tokens - 1) / finish.decode_seconds);
  }
  fmt::print(stderr, "generate: {} + {} tokens, the first after {:.2f} s{}; ended {}\n",
             finish.prompt_tokens, tokens, finish.queue_seconds + finish.prefill_seconds, rate,
             at_stop_string     ? "at a stop string"
             : finish.end_token ? "by the end token"
                                : "at --max-tokens");
}

// "-0.123  'the'   'a' -2.345  'an' -4.012", a line a token.
void print_logprobs(const Tokenizer& tokenizer, const std::vector<TokenEvent>& events) {
  const auto quoted = [&](int64_t token) {
    return json::serialize(json::value(tokenizer.decode(std::vector<int64_t>{token})));
  };
  for (const TokenEvent& event : events) {
    std::string line = fmt::format("{:9.4f}  {}", event.logprob, quoted(event.token));
    for (const TokenLogprob& other : event.top) {
      line += fmt::format("  | {} {:.4f}", quoted(other.token), other.logprob);
    }
    std::cout << line << "\n";
  }
}

struct PrintedAnswer {
  AnswerText reading;
  std::string text;  // what is not printed yet
  std::vector<TokenEvent> events;
  Finish finish;
};

void print_answers(const GenerationModel& model, const Args& args, const std::string& text) {
  const std::vector<int64_t> prompt =
      args.chat ? model.encode_chat(render_message(model.directory, text)) : model.encode(text);
  const auto count = static_cast<size_t>(args.n);
  std::vector<PrintedAnswer> answers(
      count, PrintedAnswer{AnswerText(*model.tokenizer, args.stop), {}, {}, {}});
  SchedulerOptions options = scheduler_options(model.machine, args.engine);
  options.max_running = std::max<int64_t>(1, std::min(args.n, options.max_running));
  Scheduler scheduler(model.weights, options);
  for (size_t i = 0; i < count; ++i) {
    PrintedAnswer& answer = answers[i];
    Request request{.prompt = prompt,
                    .max_tokens = args.generate.max_tokens,
                    .sample = args.generate.sample,
                    .seed = args.generate.seed,
                    .stream = static_cast<int64_t>(i),
                    .draft_tokens = args.generate.draft_tokens,
                    .stop_ids = model.end_tokens,
                    .top_logprobs = args.logprobs};
    request.on_token = [&answer](const TokenEvent& event) {
      answer.text += answer.reading.push(event.token);
      answer.events.push_back(event);
      return !answer.reading.stopped();
    };
    request.on_finish = [&answer](const Finish& finish) {
      // Part of the text where it is no special token, as transformers has it.
      if (finish.end_token) answer.text += answer.reading.push(*finish.end_token);
      answer.text += answer.reading.finish();
      answer.finish = finish;
    };
    scheduler.submit(std::move(request));
  }
  // The first as it comes, the others behind it.
  std::optional<Progress> waiting(fmt::format("prompt of {} tokens", prompt.size()));
  for (bool more = true; more;) {
    more = scheduler.step();
    PrintedAnswer& first = answers.front();
    if (waiting && (!more || !first.events.empty())) {
      waiting.reset();
      if (count > 1) std::cout << fmt::format("--- 1 of {}\n", count);
      if (!args.chat) std::cout << text;
    }
    if (!waiting) std::cout << std::exchange(first.text, "") << std::flush;
  }
  for (size_t i = 0; i < count; ++i) {
    const PrintedAnswer& answer = answers[i];
    if (answer.finish.reason == Finish::Reason::kError) throw_error("{}", answer.finish.error);
    if (i > 0) {
      std::cout << fmt::format("--- {} of {}\n", i + 1, count) << (args.chat ? "" : text)
                << answer.text;
    }
    std::cout << "\n";
    print_logprobs(*model.tokenizer,
                   args.logprobs >= 0 ? answer.events : std::vector<TokenEvent>{});
    std::cout << std::flush;
    print_rate(answer.finish, answer.reading.stopped());
  }
}

void run(const Args& args) {
  at::NoGradGuard no_grad;
  [[maybe_unused]] const StopText refused_if_wrong(args.stop);  // before anything is loaded
  if (!args.lines.empty()) {
    if (args.prompt || !args.file.empty()) {
      throw_error("--jsonl has the prompts: give no other, and no --file");
    }
    const GenerationModel model = load_generation_model(args.model, args.machine);
    generate_lines(model, {.file = args.lines,
                           .chat = args.chat,
                           .stop = args.stop,
                           .generate = args.generate,
                           .engine = args.engine,
                           .n = args.n,
                           .logprobs = args.logprobs});
    return;
  }
  const std::string text = read_prompt(args);
  const GenerationModel model = load_generation_model(args.model, args.machine);
  if (!model.tokenizer) {
    throw_error("{} has no tokenizer.json; with --jsonl a model runs on ids alone", args.model);
  }
  print_answers(model, args, text);
}

}  // namespace

void add_generate(CLI::App& app) {
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand("generate", "Continue a text or answer a message");
  command->add_option("model", args->model, "Hugging Face directory")->required();
  command->add_option("prompt", args->prompt,
                      "text to continue; without it, --file and --jsonl: standard input");
  command->add_option("--file", args->file, "file with the text; -: standard input");
  command->add_option("--jsonl", args->lines,
                      "file of prompts and their options, a JSON object a line, answered together; "
                      "a JSON object a line comes out");
  command->add_flag("--chat", args->chat,
                    "the text is a user's message: the model's chat template is put around it, and "
                    "the answer alone is printed");
  command->add_option("--stop", args->stop, "end before this text (may be given several times)")
      ->allow_extra_args(false);
  command->add_option("--n", args->n, "answers to a prompt")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command
      ->add_option("--logprobs", args->logprobs,
                   "log-probability of every token, and of so many of the likeliest")
      ->check(CLI::Range(0, 1000));
  add_options(*command, args->generate);
  add_options(*command, args->engine);
  add_options(*command, args->machine);
  command->footer("Example: halo generate runs/demo/model \"It was\" --temperature 0.8");
  command->callback([args] { run(*args); });
}

}  // namespace halo
