#include "halo/cli/generate_lines.h"

#include <charconv>
#include <iostream>
#include <map>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/base/json_lines.h"
#include "halo/base/progress.h"
#include "halo/base/settings_io.h"
#include "halo/data/readers.h"

namespace halo {
namespace {

// The keys of a line but logit_bias.
struct Line {
  std::string prompt;
  std::vector<int64_t> ids;
  std::vector<std::string> stop;
  GenerateArgs generate;
  int64_t n = 1, logprobs = -1;

  void settings(Settings& s) {
    s("prompt", prompt, {});
    s("ids", ids, {});
    s("stop", stop, {});
    s("max_tokens", generate.max_tokens, {.min = 1, .max = kMaxCount});
    generate.sample.settings(s);
    s("seed", generate.seed, {.max = kMaxCount});
    s("n", n, {.min = 1, .max = 1024});
    s("logprobs", logprobs, {.max = 1000});
  }
};

std::vector<std::pair<int64_t, double>> read_bias(const json::value& value) {
  if (!value.is_object()) throw_error("logit_bias: expected an object {{\"TOKEN\": bias}}");
  std::vector<std::pair<int64_t, double>> out;
  for (const auto& [key, bias] : value.get_object()) {
    int64_t token = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size()) {
      throw_error("logit_bias: '{}' is no token id", std::string_view(key));
    }
    if (!bias.is_number()) throw_error("logit_bias: the bias of token {} is no number", token);
    out.emplace_back(token, bias.to_number<double>());
  }
  return out;
}

// Answers of one line, and what of them is there.
struct LineAnswers {
  struct Choice {
    std::optional<AnswerText> reading;  // none without a tokenizer
    std::string text;
    std::vector<TokenEvent> events;
    Finish finish;
  };
  std::vector<Choice> choices;
  bool logprobs = false;
  size_t left = 0;  // choices that have not ended
};

json::object to_json(const LineAnswers::Choice& choice, bool logprobs) {
  json::array ids;
  for (const TokenEvent& event : choice.events) ids.push_back(event.token);
  json::object out;
  out["text"] = choice.reading ? json::value(choice.text) : json::value(nullptr);
  out["ids"] = std::move(ids);
  out["finish_reason"] = finish_word(choice.finish.reason);
  if (!choice.finish.error.empty()) out["error"] = choice.finish.error;
  if (logprobs) out["logprobs"] = logprobs_to_json(choice.events);
  return out;
}

json::object to_json(const LineAnswers& answers) {
  if (answers.choices.size() == 1) return to_json(answers.choices[0], answers.logprobs);
  json::array choices;
  for (const auto& choice : answers.choices) choices.push_back(to_json(choice, answers.logprobs));
  return {{"choices", std::move(choices)}};
}

class Lines {
 public:
  Lines(const GenerationModel& model, const GenerateLinesArgs& args)
      : model_(model),
        args_(args),
        scheduler_(model.weights, scheduler_options(model.machine, args.engine)) {}

  void run() {
    read_json_lines(args_.file, [&](const json::object& object, const std::string& place) {
      try {
        add(object);
      } catch (const Error& error) {
        throw_error("{}: {}", place, error.what());
      }
    });
    {
      Progress progress("generate", std::ssize(lines_));
      int64_t printed = 0;
      for (bool more = true; more; progress.update(printed)) {
        more = scheduler_.step();
        printed += print();
      }
    }
    if (failed_ > 0) throw_error("{} of {} answers ended with an error", failed_, num_answers_);
  }

 private:
  Line read(json::object object) {
    Line line{
        .stop = args_.stop, .generate = args_.generate, .n = args_.n, .logprobs = args_.logprobs};
    // What clients write for "not given".
    for (auto it = object.begin(); it != object.end();) {
      it = it->value().is_null() ? object.erase(it) : it + 1;
    }
    if (const json::value* bias = object.if_contains("logit_bias")) {
      line.generate.sample.logit_bias = read_bias(*bias);
      object.erase("logit_bias");
    }
    if (json::value* stop = object.if_contains("stop"); stop && stop->is_string()) {
      *stop = json::array{*stop};
    }
    try {
      read_json_settings(settings_of(line), object, "");
    } catch (const Error& error) {
      const std::string_view what = error.what();
      throw_error("{}", what.substr(what.starts_with(": ") ? 2 : 0));
    }
    if (object.contains("prompt") == object.contains("ids")) {
      throw_error("expected either 'prompt' or 'ids'");
    }
    if (object.contains("ids")) check_ids(line.ids);
    try {
      [[maybe_unused]] const StopText refused_if_wrong(line.stop);
    } catch (const Error& error) {
      throw_error("stop: {}", error.what());
    }
    if (model_.tokenizer) {
      if (object.contains("prompt")) {
        line.ids = args_.chat ? model_.encode_chat(render_message(model_.directory, line.prompt))
                              : model_.encode(line.prompt);
      }
    } else if (object.contains("prompt") || !line.stop.empty()) {
      throw_error("{}: {} has no tokenizer.json; give 'ids'",
                  object.contains("prompt") ? "prompt" : "stop", model_.directory.string());
    }
    return line;
  }

  void check_ids(const std::vector<int64_t>& ids) const {
    if (ids.empty()) throw_error("ids: the list is empty");
    for (const int64_t id : ids) {
      if (id < 0 || id >= model_.vocabulary) {
        throw_error("ids: token {} is outside the vocabulary of {}", id, model_.vocabulary);
      }
    }
  }

  void add(const json::object& object) {
    Line line = read(object);
    const size_t index = lines_.size();
    LineAnswers& answers = lines_[index];
    answers.choices.resize(static_cast<size_t>(line.n));
    answers.logprobs = line.logprobs >= 0;
    answers.left = answers.choices.size();
    num_answers_ += std::ssize(answers.choices);
    // Without a seed of its own a line draws differently from one that asks the same.
    const int64_t stream = object.contains("seed") ? 0 : static_cast<int64_t>(index) << 20;
    for (int64_t i = 0; i < line.n; ++i) {
      LineAnswers::Choice& choice = answers.choices[static_cast<size_t>(i)];
      if (model_.tokenizer) choice.reading.emplace(*model_.tokenizer, line.stop);
      Request request{.prompt = line.ids,
                      .max_tokens = line.generate.max_tokens,
                      .sample = line.generate.sample,
                      .seed = line.generate.seed,
                      .stream = stream + i,
                      .draft_tokens = line.generate.draft_tokens,
                      .stop_ids = model_.end_tokens,
                      .top_logprobs = line.logprobs};
      request.on_token = [&choice](const TokenEvent& event) {
        choice.events.push_back(event);
        if (!choice.reading) return true;
        choice.text += choice.reading->push(event.token);
        return !choice.reading->stopped();
      };
      request.on_finish = [this, &answers, &choice](const Finish& finish) {
        if (choice.reading) choice.text += choice.reading->finish();
        choice.finish = finish;
        failed_ += finish.reason == Finish::Reason::kError;
        --answers.left;
      };
      scheduler_.submit(std::move(request));
    }
  }

  // The answers that are next and there; returns of how many lines.
  int64_t print() {
    int64_t printed = 0;
    for (; !lines_.empty() && lines_.begin()->second.left == 0; lines_.erase(lines_.begin())) {
      std::cout << json::serialize(to_json(lines_.begin()->second)) << "\n";
      ++printed;
    }
    if (printed > 0) std::cout << std::flush;
    return printed;
  }

  const GenerationModel& model_;
  const GenerateLinesArgs& args_;
  std::map<size_t, LineAnswers> lines_;  // not printed yet, by their places in the file
  int64_t failed_ = 0, num_answers_ = 0;
  Scheduler scheduler_;  // goes first: its requests refer to the lines
};

}  // namespace

void generate_lines(const GenerationModel& model, const GenerateLinesArgs& args) {
  Lines(model, args).run();
}

json::array logprobs_to_json(const std::vector<TokenEvent>& events) {
  json::array out;
  for (const TokenEvent& event : events) {
    json::object token{{"id", event.token}, {"logprob", finite_or_null(event.logprob)}};
    if (!event.top.empty()) {
      json::array top;
      for (const TokenLogprob& other : event.top) {
        top.push_back({{"id", other.token}, {"logprob", finite_or_null(other.logprob)}});
      }
      token["top"] = std::move(top);
    }
    out.push_back(std::move(token));
  }
  return out;
}

}  // namespace halo
