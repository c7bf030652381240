// halo chat: a conversation with a model on a terminal or from standard input, a message a line.
#include <unistd.h>

#include <iostream>
#include <optional>

#include "ATen/ATen.h"
#include "halo/base/json.h"
#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/chat/chat_template.h"
#include "halo/cli/commands.h"
#include "halo/cli/generation.h"
#include "halo/cli/output.h"
#include "halo/engine/generate.h"
#include "halo/formats/model_hash.h"

namespace halo {
namespace {

struct Args {
  std::string model, system, load;
  int64_t context = 0;
  GenerateArgs generate;
  EngineRecipe engine;
  MachineRecipe machine;
};

constexpr const char* kHelp =
    R"(  /save FILE   write the conversation and what the model knows of it
  /load FILE   go on with a saved one, without reading it again
  /undo        take back the last message and its answer
  /edit TEXT   the same, and send TEXT instead
  /stats       tokens, memory, what was reused
  /help        this
  /quit        end (so does the end of input)
Anything else is a message. One that begins with / has another / before it.
)";

class Chat {
 public:
  Chat(const Args& args, const GenerationModel& model)
      : args_(args),
        model_(model),
        template_(model.directory),
        scheduler_(model.weights, options(args, model)) {
    if (!args.system.empty()) add("system", args.system);
  }

  void answer(const std::string& text);
  // Whether to go on.
  bool obey(const std::string& line);

 private:
  static SchedulerOptions options(const Args& args, const GenerationModel& model) {
    SchedulerOptions options = scheduler_options(model.machine, args.engine);
    options.max_running = 1;
    options.min_reused = 1;  // a conversation keeps all that it can
    options.context = args.context;
    return options;
  }

  void add(const char* role, const std::string& text) {
    messages_.push_back(json::object{{"role", role}, {"content", text}});
  }
  // The conversation with the start of an answer.
  std::string rendered() const {
    ChatOptions options;
    options.add_generation_prompt = true;
    return template_.render(messages_, std::move(options));
  }
  // Where it goes on from what was said, the tokens that were said stand, whatever the tokenizer
  // would make of their text.
  std::vector<int64_t> encode(const std::string& text) const {
    if (said_ids_.empty() || !text.starts_with(said_text_)) return model_.encode_chat(text);
    std::vector<int64_t> ids = said_ids_;
    const auto more = model_.tokenizer->encode(text.substr(said_text_.size()));
    ids.insert(ids.end(), more.begin(), more.end());
    return ids;
  }
  bool undo();
  void save(const std::string& file);
  void load(const std::string& file);
  void print_stats() const;

  const Args& args_;
  const GenerationModel& model_;
  const ModelChat template_;
  Scheduler scheduler_;
  json::array messages_;
  std::string said_text_;          // all as rendered, up to the last answer's end
  std::vector<int64_t> said_ids_;  // its tokens
};

void Chat::answer(const std::string& text) {
  add("user", text);
  Request request;
  std::string prompt_text, said, unprinted;
  std::vector<int64_t> ids;
  AnswerText reading(*model_.tokenizer, {});
  std::optional<Finish> finish;
  try {
    prompt_text = rendered();
    ids = encode(prompt_text);
    request = {.prompt = ids,
               .max_tokens = args_.generate.max_tokens,
               .sample = args_.generate.sample,
               .seed = args_.generate.seed,
               .draft_tokens = args_.generate.draft_tokens,
               .stop_ids = model_.end_tokens};
    request.on_token = [&](const TokenEvent& event) {
      ids.push_back(event.token);
      unprinted += reading.push(event.token);
      return true;
    };
    request.on_finish = [&](const Finish& how) { finish = how; };
    scheduler_.submit(std::move(request));
  } catch (const Error&) {
    messages_.pop_back();
    throw;
  }
  {
    std::optional<Progress> waiting(fmt::format("prompt of {} tokens", ids.size()));
    while (scheduler_.step()) {
      if (unprinted.empty()) continue;
      waiting.reset();
      said += unprinted;
      std::cout << std::exchange(unprinted, "") << std::flush;
    }
  }
  unprinted += reading.finish();
  said += unprinted;
  std::cout << unprinted << "\n" << std::flush;
  if (finish->reason == Finish::Reason::kError) {
    messages_.pop_back();
    throw_error("{}", finish->error);
  }
  add("assistant", said);
  said_text_ = prompt_text + said;
  said_ids_ = ids;
  const bool cut = finish->reason == Finish::Reason::kLength;
  const bool full = std::ssize(ids) >= scheduler_.context();
  say(fmt::format(
      "[{}{} tokens, {} of the prompt's {} were there; {:.2f} s to the first, then "
      "{:.1f}/s{}]",
      ids.size(), args_.context > 0 ? fmt::format(" of {}", args_.context) : "",
      finish->cached_tokens, finish->prompt_tokens, finish->queue_seconds + finish->prefill_seconds,
      static_cast<double>(finish->completion_tokens) / std::max(finish->decode_seconds, 1e-9),
      full  ? "; the context is full"
      : cut ? "; cut at --max-tokens"
            : ""));
}

bool Chat::undo() {
  const auto is_user = [](const json::value& message) { return message.at("role") == "user"; };
  size_t size = messages_.size();
  while (size > 0 && !is_user(messages_[size - 1])) --size;
  if (size == 0) return false;
  while (messages_.size() >= size) messages_.pop_back();
  // What was said up to there is found again by its tokens.
  said_text_.clear();
  said_ids_.clear();
  return true;
}

void Chat::save(const std::string& file) {
  if (said_ids_.empty()) throw_error("there is nothing to save yet");
  // The last token of an answer was not fed so far; what is kept then has the logits behind it.
  halo::answer(scheduler_, {{.prompt = said_ids_, .max_tokens = 1}});
  const json::object text{{"messages", messages_}, {"text", said_text_}};
  const int64_t tokens = scheduler_.save_prefix(
      file, said_ids_, 0, {model_hash(model_.directory), json::serialize(text)});
  HALO_CHECK(tokens == std::ssize(said_ids_), "chat: {} of {} tokens saved", tokens,
             said_ids_.size());
  say(fmt::format("saved {} tokens in {}", tokens, file));
}

void Chat::load(const std::string& file) {
  Scheduler::SavedPrefix saved = scheduler_.load_prefix(file, 0, model_hash(model_.directory));
  const json::value text = parse_json(saved.text, file);
  if (!text.is_object()) throw_error("{}: there is no conversation in it", file);
  messages_ = json_get<json::array>(text.get_object(), "messages", file);
  said_text_ = json_get<std::string>(text.get_object(), "text", file);
  said_ids_ = std::move(saved.tokens);
  say(fmt::format("{} messages, {} tokens", messages_.size(), said_ids_.size()));
}

void Chat::print_stats() const {
  const SchedulerStats stats = scheduler_.stats();
  fmt::print(stderr,
             "messages {}, tokens {}\n"
             "prompt tokens computed {}, reused {}; tokens made {}, of them {} by {} drafts\n"
             "kept beginnings {}; K/V blocks {} of {}, states {} of {}\n",
             messages_.size(), said_ids_.size(), stats.prompt_tokens, stats.reused_tokens,
             stats.generated_tokens, stats.right_tokens, stats.draft_tokens, stats.kept_prefixes,
             stats.blocks_used, stats.blocks, stats.slots_used, stats.slots);
}

bool Chat::obey(const std::string& line) {
  const size_t space = line.find(' ');
  const std::string word = line.substr(0, space);
  const std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
  const auto needs = [&](const char* what) {
    if (rest.empty()) throw_error("{} needs {}", word, what);
  };
  if (word == "/quit") return false;
  if (word == "/help") {
    fmt::print(stderr, "{}", kHelp);
  } else if (word == "/stats") {
    print_stats();
  } else if (word == "/save") {
    needs("a file");
    save(rest);
  } else if (word == "/load") {
    needs("a file");
    load(rest);
  } else if (word == "/undo" || word == "/edit") {
    if (word == "/edit") needs("a text");
    if (!undo()) throw_error("there is no message to take back");
    if (word == "/edit") {
      answer(rest);
    } else {
      say(fmt::format("{} messages left", messages_.size()));
    }
  } else if (word.starts_with("//")) {
    answer(line.substr(1));
  } else {
    throw_error("{} is unknown; /help lists what there is", word);
  }
  return true;
}

void run(const Args& given) {
  at::NoGradGuard no_grad;
  const GenerationModel model = load_generation_model(given.model, given.machine);
  if (!model.tokenizer) throw_error("{} has no tokenizer.json", given.model);
  Args args = given;
  const ModelConfig config = read_model_config(given.model);
  // One with positions is lost beyond those it was made for.
  if (args.context == 0 && config.model_type != ModelType::kHypenet) {
    args.context = config.max_position_embeddings;
  }
  Chat chat(args, model);
  const bool terminal = isatty(STDIN_FILENO);
  if (terminal) fmt::print(stderr, "/help lists commands, /quit ends\n");
  if (!args.load.empty()) chat.obey("/load " + args.load);
  int64_t failed = 0;
  for (std::string line;;) {
    if (terminal) fmt::print(stderr, "> ");
    if (!std::getline(std::cin, line)) break;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    try {
      if (!line.starts_with('/')) {
        chat.answer(line);
      } else if (!chat.obey(line)) {
        break;
      }
    } catch (const OutputClosed&) {
      throw;
    } catch (const Error& error) {
      say(error.what());
      ++failed;
    }
  }
  if (failed > 0 && !terminal) throw_error("{} lines could not be done", failed);
}

}  // namespace

void add_chat(CLI::App& app) {
  auto args = std::make_shared<Args>();
  args->generate.max_tokens = 1024;
  CLI::App* command = app.add_subcommand("chat", "A conversation, by the model's chat template");
  command->add_option("model", args->model, "Hugging Face directory")->required();
  command->add_option("--system", args->system, "the system message");
  command->add_option("--load", args->load, "go on with a conversation that /save wrote");
  command
      ->add_option("--context", args->context,
                   "tokens of the conversation at most; 0: the model's positions, or as many as "
                   "fit into memory where it has none")
      ->check(CLI::Range(0.0, kMaxCount));
  add_options(*command, args->generate);
  add_options(*command, args->engine);
  add_options(*command, args->machine);
  command->footer("Example: halo chat MODEL --temperature 0.7 --top-p 0.9");
  command->callback([args] { run(*args); });
}

}  // namespace halo
