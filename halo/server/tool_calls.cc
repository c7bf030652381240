#include "halo/server/tool_calls.h"

#include <algorithm>
#include <optional>

#include "halo/base/json_text.h"
#include "halo/server/json_syntax.h"

namespace halo {
namespace {

constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>";
constexpr std::string_view kTag = "<tool_call>", kTagEnd = "</tool_call>";
constexpr std::string_view kMistralMark = "[TOOL_CALLS]", kArguments = "[ARGS]",
                           kCallId = "[CALL_ID]";
constexpr std::string_view kPython = "<|python_tag|>";
constexpr std::string_view kSpace = " \t\r\n";

// Bytes at the end of `text` that may be the start of `mark`.
size_t begun(std::string_view text, std::string_view mark) {
  if (mark.empty()) return 0;
  size_t size = std::min(text.size(), mark.size() - 1);
  while (size > 0 && !text.ends_with(mark.substr(0, size))) --size;
  return size;
}

size_t trailing_space(std::string_view text) {
  const size_t last = text.find_last_not_of(kSpace);
  return last == std::string_view::npos ? text.size() : text.size() - last - 1;
}

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.size() - first - trailing_space(text));
}

std::optional<json::value> parse(std::string_view text) {
  try {
    return parse_json(text, "call");
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<ToolCall> read_call(const json::value& value) {
  const auto* object = value.if_object();
  if (object == nullptr) return std::nullopt;
  const json::value* name = object->if_contains("name");
  if (name == nullptr || !name->is_string() || name->get_string().empty()) return std::nullopt;
  ToolCall call;
  call.name = std::string(name->get_string());
  const json::value* arguments = object->if_contains("arguments");
  if (arguments == nullptr) arguments = object->if_contains("parameters");
  if (arguments == nullptr) {
    call.arguments = "{}";
  } else if (const auto* text = arguments->if_string()) {
    if (!parse(std::string_view(text->data(), text->size()))) return std::nullopt;
    call.arguments = std::string(*text);
  } else {
    call.arguments = format_json_line(*arguments);
  }
  return call;
}

bool is_json(std::string_view text) {
  return json_value_end(text, 0) == text.size();
}

// A call in JSON that parse_json does not take (json_syntax.h): its arguments as they are written.
std::optional<ToolCall> read_raw_call(std::string_view object) {
  ToolCall call;
  const auto skip = [&](size_t at) { return object.find_first_not_of(" \t\r\n,:", at); };
  for (size_t at = skip(1); at < object.size() && object[at] != '}';) {
    const size_t key_end = json_value_end(object, at), begin = skip(key_end);
    const size_t end = json_value_end(object, begin);
    const std::string_view key = object.substr(at, key_end - at);
    const std::string_view member = object.substr(begin, end - begin);
    if (key == "\"name\"") {
      const auto name = parse(member);
      if (!name || !name->is_string()) return std::nullopt;
      call.name = std::string(name->get_string());
    } else if (key == "\"arguments\"" || key == "\"parameters\"") {
      call.arguments = std::string(member);
    }
    at = skip(end);
  }
  if (call.name.empty() || call.arguments.empty()) return std::nullopt;
  return call;
}

std::optional<std::vector<ToolCall>> read_raw_calls(std::string_view text) {
  if (text.empty() || !is_json(text)) return std::nullopt;
  std::vector<ToolCall> calls;
  size_t at = text.front() == '[' ? text.find_first_of("{]") : 0;
  while (at < text.size() && text[at] == '{') {
    const size_t end = json_value_end(text, at);
    auto call = read_raw_call(text.substr(at, end - at));
    if (!call) return std::nullopt;
    calls.push_back(*std::move(call));
    at = text.find_first_not_of(" \t\r\n,", end);
  }
  if (calls.empty()) return std::nullopt;
  return calls;
}

// A call, or a list of calls.
std::optional<std::vector<ToolCall>> read_calls(std::string_view text) {
  const std::optional<json::value> value = parse(trim(text));
  if (!value) return read_raw_calls(trim(text));
  std::vector<ToolCall> calls;
  const auto add = [&](const json::value& one) {
    std::optional<ToolCall> call = read_call(one);
    if (call) calls.push_back(*std::move(call));
    return call.has_value();
  };
  if (const auto* list = value->if_array()) {
    if (!std::ranges::all_of(*list, add)) return std::nullopt;
  } else if (!add(*value)) {
    return std::nullopt;
  }
  return calls;
}

// name[CALL_ID]id[ARGS]{...}, or name{...}
std::optional<ToolCall> read_named_call(std::string_view text) {
  const size_t brace = text.find('{');
  if (brace == std::string_view::npos) return std::nullopt;
  const std::string_view name = text.substr(0, std::min(brace, text.find('[')));
  if (!is_json(trim(text.substr(brace)))) return std::nullopt;
  ToolCall call;
  call.name = std::string(trim(name));
  call.arguments = std::string(trim(text.substr(brace)));
  if (call.name.empty()) return std::nullopt;
  return call;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + separator.size());
  }
}

std::optional<std::vector<ToolCall>> read_mistral(std::string_view body) {
  if (auto whole = read_calls(body)) return whole;
  std::vector<ToolCall> calls;
  for (const std::string_view part : split(body, kMistralMark)) {
    if (trim(part).empty()) continue;
    if (auto list = read_calls(part)) {
      calls.insert(calls.end(), list->begin(), list->end());
    } else if (auto call = read_named_call(part)) {
      calls.push_back(*std::move(call));
    } else {
      return std::nullopt;
    }
  }
  return calls;
}

// Objects with ';' between them; one that stands in a text of an argument separates nothing.
std::optional<std::vector<ToolCall>> read_llama(std::string_view body) {
  if (auto whole = read_calls(body)) return whole;
  std::vector<ToolCall> calls;
  std::string joined;  // parts that are no call yet, a ';' behind each
  for (const std::string_view part : split(body, ";")) {
    joined += part;
    if (trim(part).ends_with('}')) {
      if (auto some = read_calls(joined)) {
        calls.insert(calls.end(), some->begin(), some->end());
        joined.clear();
        continue;
      }
    }
    if (!trim(joined).empty()) joined += ';';
  }
  if (!trim(joined).empty()) return std::nullopt;
  return calls;
}

}  // namespace

ToolFormat tool_format_of(std::string_view chat_template) {
  const auto has = [&](std::string_view text) {
    return chat_template.find(text) != std::string_view::npos;
  };
  if (has(kTag)) return ToolFormat::kTags;
  if (has(kMistralMark)) return ToolFormat::kMistral;
  if (has(kPython) || (has("<|start_header_id|>") && has("parameters"))) return ToolFormat::kLlama;
  return ToolFormat::kTags;
}

std::vector<std::string_view> tool_markers(ToolFormat format) {
  switch (format) {
    case ToolFormat::kTags:
      return {kTag, kTagEnd};
    case ToolFormat::kMistral:
      return {kMistralMark, kArguments, kCallId};
    case ToolFormat::kLlama:
      return {kPython};
    case ToolFormat::kNone:
      break;
  }
  return {};
}

AnswerParser::AnswerParser(AnswerForm form)
    : form_(std::move(form)),
      state_(form_.begins_in_reasoning ? State::kReasoning : State::kText) {}

std::string_view AnswerParser::opener() const {
  switch (form_.tools) {
    case ToolFormat::kTags:
      return kTag;
    case ToolFormat::kMistral:
      return kMistralMark;
    case ToolFormat::kLlama:
      return kPython;
    case ToolFormat::kNone:
      break;
  }
  return {};
}

void AnswerParser::emit(std::vector<Piece>& out, Piece::Kind kind, std::string_view text) {
  if (text.empty()) return;
  at_start_ = false;
  has_text_ = has_text_ || kind == Piece::Kind::kText;
  if (!out.empty() && out.back().kind == kind) {
    out.back().text += text;
  } else {
    out.push_back({.kind = kind, .text = std::string(text)});
  }
}

bool AnswerParser::emit_calls(std::vector<Piece>& out, std::string_view body) {
  auto calls = form_.tools == ToolFormat::kMistral ? read_mistral(body)
               : form_.tools == ToolFormat::kLlama ? read_llama(body)
                                                   : read_calls(body);
  if (!calls || calls->empty()) return false;
  // Without a mark a call is told from an answer in JSON by its name alone.
  const auto known = [&](const ToolCall& call) { return form_.tool_names.contains(call.name); };
  if (!behind_opener_ && !std::ranges::all_of(*calls, known)) return false;
  for (ToolCall& call : *calls) {
    call.id = make_id("", 9);  // the length that Mistral's templates ask for
    out.push_back({.kind = Piece::Kind::kToolCall, .call = std::move(call)});
    ++num_calls_;
  }
  return true;
}

// Space at the beginning, and behind thoughts and calls, belongs to nobody.
bool AnswerParser::step_text(std::vector<Piece>& out) {
  const std::string_view call = opener();
  const bool may_think = form_.has_reasoning && !has_text_;
  const bool has_marks = may_think || !call.empty();
  if (at_start_ && has_marks) {
    size_t first = held_.find_first_not_of(kSpace);
    if (first == std::string::npos) return false;
    if (has_text_ || behind_opener_) {
      held_.erase(0, first);
      first = 0;
    }
    const std::string_view rest = std::string_view(held_).substr(first);
    if (may_think && kThink.starts_with(rest) && rest != kThink) return false;
    if (may_think && rest.starts_with(kThink)) {
      held_.erase(0, first + kThink.size());
      state_ = State::kReasoning;
      behind_opener_ = true;
      return true;
    }
    if (form_.tools == ToolFormat::kLlama && !has_text_ && held_[first] == '{') {
      held_.erase(0, first);
      behind_opener_ = false;
      state_ = State::kCall;
      return true;
    }
  }
  const size_t at = call.empty() ? std::string::npos : held_.find(call);
  std::string_view text = held_;
  if (at != std::string::npos) {
    text = text.substr(0, at);
    emit(out, Piece::Kind::kText, std::string(text.substr(0, text.size() - trailing_space(text))));
    held_.erase(0, at + call.size());
    state_ = State::kCall;
    behind_opener_ = true;
    at_start_ = true;
    return true;
  }
  text = text.substr(0, text.size() - begun(text, call));
  // A line's end before a call belongs to the call.
  if (!call.empty()) text = text.substr(0, text.size() - trailing_space(text));
  const size_t size = text.size();
  emit(out, Piece::Kind::kText, std::string(text));
  held_.erase(0, size);
  return false;
}

bool AnswerParser::step_reasoning(std::vector<Piece>& out) {
  if (at_start_) held_.erase(0, std::min(held_.find_first_not_of(kSpace), held_.size()));
  const size_t end = held_.find(kThinkEnd);
  std::string_view text = std::string_view(held_).substr(0, end);
  if (end == std::string::npos) text = text.substr(0, text.size() - begun(text, kThinkEnd));
  text = text.substr(0, text.size() - trailing_space(text));
  const size_t size = text.size();
  emit(out, Piece::Kind::kReasoning, std::string(text));
  if (end == std::string::npos) {
    held_.erase(0, size);
    return false;
  }
  held_.erase(0, end + kThinkEnd.size());
  state_ = State::kText;
  at_start_ = behind_opener_ = true;
  return true;
}

// In a text of the call's JSON the tag ends nothing.
size_t AnswerParser::find_tag_end() {
  for (; searched_ < held_.size(); ++searched_) {
    const char c = held_[searched_];
    if (in_string_) {
      in_string_ = is_escaped_ || c != '"';
      is_escaped_ = !is_escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '<') {
      const std::string_view rest = std::string_view(held_).substr(searched_);
      if (rest.starts_with(kTagEnd)) return std::exchange(searched_, 0);
      if (kTagEnd.starts_with(rest)) break;
    }
  }
  return std::string::npos;
}

bool AnswerParser::step_call(std::vector<Piece>& out) {
  if (form_.tools != ToolFormat::kTags) return false;  // the rest is calls: known at the end
  const size_t end = find_tag_end();
  if (end == std::string::npos) return false;
  const std::string body = held_.substr(0, end);
  held_.erase(0, end + kTagEnd.size());
  state_ = State::kText;
  at_start_ = true;
  if (!emit_calls(out, body)) {
    emit(out, Piece::Kind::kText, std::string(kTag) + body + std::string(kTagEnd));
  }
  return true;
}

bool AnswerParser::step(std::vector<Piece>& out) {
  switch (state_) {
    case State::kText:
      return step_text(out);
    case State::kReasoning:
      return step_reasoning(out);
    case State::kCall:
      return step_call(out);
  }
  return false;
}

std::vector<Piece> AnswerParser::push(std::string_view text) {
  std::vector<Piece> out;
  held_ += text;
  while (!held_.empty() && step(out)) continue;
  return out;
}

std::vector<Piece> AnswerParser::finish() {
  std::vector<Piece> out;
  std::string rest = std::exchange(held_, "");
  switch (state_) {
    case State::kReasoning:
      emit(out, Piece::Kind::kReasoning, rest);
      break;
    case State::kText:
      // Space alone, held back for a mark that did not come.
      if (!(at_start_ && (has_text_ || behind_opener_) && trim(rest).empty()))
        emit(out, Piece::Kind::kText, rest);
      break;
    case State::kCall:
      if (emit_calls(out, rest)) break;
      emit(out, Piece::Kind::kText, (behind_opener_ ? std::string(opener()) : "") + rest);
      break;
  }
  return out;
}

}  // namespace halo
