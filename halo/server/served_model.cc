#include "halo/server/served_model.h"

#include <chrono>

#include "halo/data/pack.h"
#include "halo/formats/model_hash.h"
#include "halo/tokenizer/special_tokens.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

bool has_template(const fs::path& directory) {
  if (fs::exists(directory / "chat_template.jinja") ||
      fs::exists(directory / "additional_chat_templates" / "tool_use.jinja"))
    return true;
  const fs::path file = directory / "tokenizer_config.json";
  if (!fs::exists(file)) return false;
  const json::value config = read_json(file);
  const json::value* found =
      config.is_object() ? config.get_object().if_contains("chat_template") : nullptr;
  return found != nullptr && !found->is_null();
}

std::string directory_name(const fs::path& directory) {
  const fs::path whole = fs::weakly_canonical(fs::absolute(directory));
  return whole.filename().string();
}

int64_t seconds_of(const fs::path& file) {
  const auto time = std::chrono::file_clock::to_sys(fs::last_write_time(file));
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

ServedModel::ServedModel(const fs::path& directory, const ModelConfig& config, std::string name)
    : directory_(directory),
      name_(name.empty() ? directory_name(directory) : std::move(name)),
      config_(config),
      tokenizer_(directory / "tokenizer.json"),
      end_tokens_(read_end_tokens(directory, config)),
      document_begin_(document_begin(tokenizer_, directory / "tokenizer.json")),
      special_tokens_(halo::special_tokens(directory)),
      created_(seconds_of(directory / "config.json")) {
  if (has_template(directory)) chat_.emplace(directory);
  std::set<int64_t> shown;
  std::vector<std::string_view> marks = {"<think>", "</think>"};
  if (chat_) {
    const auto tools = tool_markers(tool_format_of(chat_->source(true)));
    marks.insert(marks.end(), tools.begin(), tools.end());
  }
  for (const std::string_view mark : marks) {
    if (const auto id = tokenizer_.token_id(mark)) shown.insert(*id);
  }
  grammars_ = std::make_unique<const GrammarCompiler>(
      grammar_tokens(tokenizer_, config_.vocab_size, end_tokens_, shown));
}

const std::string& ServedModel::hash() const {
  std::call_once(hashed_, [this] { hash_ = model_hash(directory_); });
  return hash_;
}

const std::string& ServedModel::chat_template() const {
  static const std::string none;
  return chat_ ? chat_->source(false) : none;
}

void ServedModel::check_tokens(std::span<const int64_t> tokens, const std::string& param) const {
  for (const int64_t id : tokens) {
    if (id < 0 || id >= config_.vocab_size)
      throw bad_field(param,
                      fmt::format("token {} is none of the model's {}", id, config_.vocab_size));
  }
}

std::vector<int64_t> ServedModel::encode(const std::string& text, bool add_special,
                                         const std::string& param) const {
  std::vector<int64_t> out = tokenizer_.encode(text);
  if (add_special && document_begin_ && (out.empty() || out.front() != *document_begin_))
    out.insert(out.begin(), *document_begin_);
  check_tokens(out, param);  // tokenizers may have tokens that the model has no row for
  return out;
}

std::string ServedModel::render(const ChatRequest& request) const {
  if (!chat_)
    throw bad_field("messages",
                    "the model has no chat template; /v1/completions goes on with a text",
                    "chat_template_missing");
  Conversation conversation = request.conversation;
  const bool has_tools = !conversation.tools.is_null();
  if (has_tools && !has(chat_->source(true), "tools")) describe_tools(conversation);
  std::string last;
  if (request.continue_final_message)
    last = std::string(conversation.messages.back().as_object().at("content").as_string());
  ChatOptions options;
  options.tools = conversation.tools;
  options.variables = conversation.variables;
  options.add_generation_prompt = request.add_generation_prompt;
  std::string text;
  try {
    text = chat_->render(conversation.messages, std::move(options));
  } catch (const Error& error) {
    throw bad_field("messages", fmt::format("the chat template refuses them: {}", error.what()),
                    "chat_template_error");
  }
  if (!request.continue_final_message) return text;
  const size_t at = last.empty() ? std::string::npos : text.rfind(last);
  if (at == std::string::npos)
    throw bad_field("continue_final_message", "the last message is not found in the prompt");
  return text.substr(0, at + last.size());
}

Grammar ServedModel::grammar(const TextFormat& rules, const std::string& param) const {
  try {
    return grammars_->compile(rules);
  } catch (const Error& error) {
    throw bad_field(param, error.what(), "unsupported_schema");
  }
}

AnswerForm ServedModel::answer_form(const ChatRequest& request, const std::string& prompt) const {
  AnswerForm form;
  const bool has_tools = !request.conversation.tools.is_null();
  const std::string& source = chat_->source(has_tools);
  if (has_tools) {
    form.tools = has(source, "tools") ? tool_format_of(source) : ToolFormat::kTags;
    form.tool_names = request.conversation.tool_names;
  }
  form.has_reasoning = has(source, "<think>") || has(source, "</think>") ||
                       tokenizer_.token_id("<think>").has_value();
  const size_t last = prompt.find_last_not_of(" \t\r\n");
  form.begins_in_reasoning =
      form.has_reasoning && std::string_view(prompt).substr(0, last + 1).ends_with("<think>");
  return form;
}

}  // namespace halo
