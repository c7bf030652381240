#include "halo/server/completions.h"

#include "halo/base/utf8.h"

namespace halo {
namespace {

int64_t read_token(const json::value& value, const std::string& path) {
  if (!value.is_int64())
    throw bad_field(path, fmt::format("expected a token's number, got {}", kind_of(value)),
                    "invalid_type");
  if (value.get_int64() < 0) throw bad_field(path, "a token's number is negative");
  return value.get_int64();
}

std::vector<int64_t> read_tokens(const json::array& list, const std::string& path) {
  std::vector<int64_t> out;
  out.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    // The path is made only for a message: there may be a million tokens.
    if (list[i].is_int64() && list[i].get_int64() >= 0) {
      out.push_back(list[i].get_int64());
    } else {
      read_token(list[i], element_path(path, i));
    }
  }
  return out;
}

void read_prompts(const Fields& fields, CompletionRequest& request) {
  const json::value* prompt = fields.find("prompt");
  const std::string path = fields.path("prompt");
  if (prompt == nullptr) fields.refuse("prompt", "is missing", "missing_required_parameter");
  if (const auto* text = prompt->if_string()) {
    request.prompts.emplace_back(std::string(*text));
    return;
  }
  const auto* list = prompt->if_array();
  if (list == nullptr)
    fields.refuse("prompt", fmt::format("expected text or a list, got {}", kind_of(*prompt)),
                  "invalid_type");
  if (list->empty()) fields.refuse("prompt", "is an empty list");
  if (list->front().is_number()) {
    request.prompts.emplace_back(read_tokens(*list, path));
    return;
  }
  if (std::ssize(*list) > kMaxPrompts)
    fields.refuse("prompt", fmt::format("expected {} prompts at most", kMaxPrompts));
  for (size_t i = 0; i < list->size(); ++i) {
    const json::value& one = (*list)[i];
    if (const auto* text = one.if_string()) {
      request.prompts.emplace_back(std::string(*text));
    } else if (const auto* tokens = one.if_array()) {
      request.prompts.emplace_back(read_tokens(*tokens, element_path(path, i)));
    } else {
      throw bad_field(element_path(path, i),
                      fmt::format("expected text or a list of tokens, got {}", kind_of(one)),
                      "invalid_type");
    }
  }
}

// Two tokens with one name stay apart.
void add_named(json::object& out, const TokenScore& score) {
  std::string name = token_name(score.bytes);
  if (out.contains(name)) name = fmt::format("token_id:{}", score.id);
  out[name] = score.logprob;
}

class CompletionFormat : public AnswerFormat {
 public:
  CompletionFormat(const CompletionRequest& request, std::string model)
      : generation_(request.generation), echo_(request.echo), model_(std::move(model)) {}

  json::value whole(const std::vector<AnswerParts>& choices, const Usage& usage) override {
    json::array list;
    for (size_t i = 0; i < choices.size(); ++i) {
      const AnswerParts& choice = choices[i];
      json::object one{{"index", i}, {"text", choice.prompt_text + text_of(choice)}};
      std::vector<ScoredToken> tokens = echo_ ? choice.prompt_tokens : std::vector<ScoredToken>();
      const bool first_unknown = echo_;
      tokens.insert(tokens.end(), choice.tokens.begin(), choice.tokens.end());
      one["logprobs"] = logprobs_json(tokens, first_unknown);
      one["finish_reason"] = finish_word(choice.finish);
      if (generation_.prompt_logprobs >= 0)
        one["prompt_logprobs"] = prompt_logprobs_json(choice.prompt_tokens);
      list.push_back(std::move(one));
    }
    json::object out = head();
    out["choices"] = std::move(list);
    out["usage"] = usage_json(usage);
    out["timings"] = timings_json(usage);
    return out;
  }

  std::string begin(const Usage&) override { return ""; }

  std::string progress(int64_t done, int64_t of) override {
    if (!generation_.return_progress) return "";
    json::object out = head();
    out["choices"] = json::array();
    out["prompt_progress"] = progress_json(done, of);
    return sse(out);
  }

  std::string prompt(size_t choice, const AnswerParts& scores) override {
    if (!echo_ && generation_.prompt_logprobs < 0) return "";
    json::object one =
        delta(choice, echo_ ? scores.prompt_text : "",
              echo_ ? std::span(scores.prompt_tokens) : std::span<ScoredToken>(), echo_, nullptr);
    if (generation_.prompt_logprobs >= 0)
      one["prompt_logprobs"] = prompt_logprobs_json(scores.prompt_tokens);
    return event(std::move(one));
  }

  std::string piece(size_t choice, const Piece& piece,
                    std::span<const ScoredToken> tokens) override {
    return event(delta(choice, piece.text, tokens, false, nullptr));
  }

  std::string end(size_t choice, const AnswerParts& answer,
                  std::span<const ScoredToken> tokens) override {
    return event(delta(choice, "", tokens, false, finish_word(answer.finish)));
  }

  std::string done(const Usage& usage) override { return stream_end(generation_, head(), usage); }

 private:
  json::object head() const {
    return {{"id", id_},
            {"object", "text_completion"},
            {"created", created_},
            {"model", model_},
            {"system_fingerprint", "halo"}};
  }

  static std::string text_of(const AnswerParts& choice) { return choice.text(Piece::Kind::kText); }

  json::object delta(size_t choice, const std::string& text, std::span<const ScoredToken> tokens,
                     bool first_unknown, const json::value& finish) const {
    return {{"index", choice},
            {"text", text},
            {"logprobs", logprobs_json(tokens, first_unknown)},
            {"finish_reason", finish}};
  }

  std::string event(json::object choice) const {
    json::object out = head();
    out["choices"] = json::array{std::move(choice)};
    return sse(out);
  }

  // `first_unknown`: nothing stands before the first token that would tell how likely it is.
  json::value logprobs_json(std::span<const ScoredToken> tokens, bool first_unknown) const {
    if (generation_.top_logprobs < 0) return nullptr;
    json::array names, logprobs, tops, offsets;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const ScoredToken& token = tokens[i];
      const bool unknown = first_unknown && i == 0;
      names.emplace_back(token_name(token.bytes));
      logprobs.push_back(unknown ? json::value() : json::value(token.logprob));
      offsets.emplace_back(token.text_offset);
      if (unknown) {
        tops.emplace_back(nullptr);
        continue;
      }
      // The token itself is always there, whichever are the likeliest.
      json::object top;
      add_named(top, token);
      for (const TokenScore& score : token.top) {
        if (score.id != token.id) add_named(top, score);
      }
      tops.push_back(std::move(top));
    }
    return json::object{{"tokens", std::move(names)},
                        {"token_logprobs", std::move(logprobs)},
                        {"top_logprobs", std::move(tops)},
                        {"text_offset", std::move(offsets)}};
  }

  static json::array prompt_logprobs_json(const std::vector<ScoredToken>& tokens) {
    json::array out;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i == 0) {
        out.emplace_back(nullptr);
        continue;
      }
      json::object scores;
      const auto add = [&](const TokenScore& score, const json::value& rank) {
        scores[std::to_string(score.id)] = json::object{
            {"logprob", score.logprob}, {"rank", rank}, {"decoded_token", token_name(score.bytes)}};
      };
      add(tokens[i], nullptr);
      for (size_t rank = 0; rank < tokens[i].top.size(); ++rank) add(tokens[i].top[rank], rank + 1);
      out.push_back(std::move(scores));
    }
    return out;
  }

  const Generation generation_;
  const bool echo_;
  const std::string model_, id_ = make_id("cmpl-");
  const int64_t created_ = unix_seconds();
};

}  // namespace

std::string token_name(const std::string& bytes) {
  if (is_utf8(bytes)) return bytes;
  std::string out = "bytes:";
  for (const char byte : bytes) out += fmt::format("\\x{:02x}", static_cast<uint8_t>(byte));
  return out;
}

CompletionRequest read_completion(const json::value& body) {
  const Fields fields(body);
  CompletionRequest out;
  out.generation = read_generation(fields);
  Generation& generation = out.generation;
  generation.max_tokens = fields.integer("max_tokens", 0, kMaxTokens);
  generation.top_logprobs = fields.integer("logprobs", 0, kMaxLogprobs).value_or(-1);
  generation.prompt_logprobs = fields.integer("prompt_logprobs", 0, kMaxLogprobs).value_or(-1);
  out.echo = fields.boolean("echo").value_or(false);
  out.add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  if (generation.max_tokens == 0 && !out.echo && generation.prompt_logprobs < 0)
    fields.refuse("max_tokens", "0 asks for nothing without 'echo' or 'prompt_logprobs'");
  read_prompts(fields, out);
  if (std::ssize(out.prompts) * generation.n > kMaxPrompts)
    fields.refuse("n", fmt::format("expected {} choices at most over all prompts", kMaxPrompts));
  generation.ignored = fields.unknown();
  return out;
}

std::unique_ptr<AnswerFormat> completion_format(const CompletionRequest& request,
                                                const std::string& model) {
  return std::make_unique<CompletionFormat>(request, model);
}

}  // namespace halo
