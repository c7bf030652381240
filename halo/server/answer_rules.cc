#include "halo/server/answer_rules.h"

#include <algorithm>

#include "halo/grammar/schema.h"

namespace halo {
namespace {

const std::string kThink = "<think>", kThinkEnd = "</think>";

json::value checked(const json::value& schema, const std::string& path) {
  try {
    return checked_schema(schema, path);
  } catch (const SchemaError& error) {
    throw bad_field(error.path(), error.what(), "unsupported_schema");
  }
}

std::string quoted(const std::string& text) {
  return json::serialize(json::value(text));
}

// {"name": "f", "arguments": {...}}, as models were trained to write it.
TextFormat call_object(const CallableTool& tool, std::string_view arguments) {
  return sequence({literal(fmt::format(R"({{"name": {}, "{}": )", quoted(tool.name), arguments)),
                   json_text(tool.arguments), literal("}")});
}

// One of the calls; a list of them where there may be several.
TextFormat calls_or_list(const TextFormat& call, bool one_call) {
  TextFormat list = one_call
                        ? sequence({literal("["), call, literal("]")})
                        : sequence({literal("["), call,
                                    repeated(sequence({literal(", "), call}), 0), literal("]")});
  return one_of({call, std::move(list)});
}

TextFormat one_of_calls(const ToolRules& rules, std::string_view arguments) {
  std::vector<TextFormat> calls;
  for (const CallableTool& tool : rules.tools) {
    if (rules.only.empty() || tool.name == rules.only)
      calls.push_back(call_object(tool, arguments));
  }
  return one_of(std::move(calls));
}

// "name[ARGS]{...}"
TextFormat named_calls(const ToolRules& rules) {
  std::vector<TextFormat> calls;
  for (const CallableTool& tool : rules.tools) {
    if (rules.only.empty() || tool.name == rules.only)
      calls.push_back(sequence({literal(tool.name + "[ARGS]"), json_text(tool.arguments)}));
  }
  return one_of(std::move(calls));
}

// A call, or several, in the form that the model's family writes, with what stands before the
// first; `mark` is what makes a text a call, and `behind` what comes after it.
struct CallForm {
  std::string mark;
  TextFormat behind;
  std::string between;  // two of them
};
CallForm call_form(ToolFormat format, const ToolRules& rules) {
  const TextFormat space = matching("[ \\n]?");
  switch (format) {
    case ToolFormat::kMistral:
      return {"[TOOL_CALLS]",
              one_of({sequence(
                          {space, calls_or_list(one_of_calls(rules, "arguments"), rules.one_call)}),
                      named_calls(rules)}),
              ""};
    case ToolFormat::kLlama:
      return {"", one_of_calls(rules, "parameters"), "; "};
    case ToolFormat::kTags:
    case ToolFormat::kNone:
      break;
  }
  return {"<tool_call>",
          sequence({space, calls_or_list(one_of_calls(rules, "arguments"), rules.one_call), space,
                    literal("</tool_call>")}),
          "\n"};
}

// The answer is calls and nothing else.
TextFormat only_calls(ToolFormat format, const ToolRules& rules) {
  const CallForm form = call_form(format, rules);
  const TextFormat one =
      form.mark.empty() ? form.behind : sequence({literal(form.mark), form.behind});
  if (rules.one_call) return one;
  const TextFormat next = form.between.empty() ? one : sequence({literal(form.between), one});
  return sequence({one, repeated(next, 0)});
}

// Text, in which what begins as a call is one. Llama's calls are told by how an answer begins.
TextFormat text_with_calls(ToolFormat format, const ToolRules& rules) {
  if (format == ToolFormat::kLlama) {
    return one_of({only_calls(format, rules),
                   sequence({matching("[^{<\\s]"), free_text({"<|python_tag|>"})})});
  }
  CallForm form = call_form(format, rules);
  return free_text_with({{form.mark, std::move(form.behind)}});
}

// Behind thoughts, where the model has them.
TextFormat with_thoughts(const AnswerForm& form, const TextFormat& answer) {
  if (!form.has_reasoning) return answer;
  const TextFormat rest =
      sequence({free_text({kThinkEnd}), literal(kThinkEnd), matching("[ \\n]*"), answer});
  if (form.begins_in_reasoning) return rest;
  return one_of({sequence({literal(kThink), rest}), answer});
}

}  // namespace

std::optional<AnswerSchema> read_response_format(const Fields& fields, std::string_view key) {
  if (fields.object(key) == nullptr) return std::nullopt;
  const Fields format(*fields.find(key), fields.path(key));
  const std::string type = format.required_text("type");
  if (type == "text") return std::nullopt;
  if (type == "json_object")
    return AnswerSchema{checked(json::object{{"type", "object"}}, ""), fields.path(key)};
  if (type != "json_schema") {
    format.refuse("type",
                  fmt::format("'{}' is not supported; expected 'text', 'json_object' or "
                              "'json_schema'",
                              type),
                  "unsupported_value");
  }
  // Completions have the schema in an object of its own, responses beside the type.
  const bool is_inside = format.object("json_schema") != nullptr;
  const Fields inside(is_inside ? *format.find("json_schema") : *fields.find(key),
                      is_inside ? format.path("json_schema") : fields.path(key));
  for (const char* said : {"name", "description"}) inside.text(said);
  inside.boolean("strict");
  const json::value* schema = inside.find("schema");
  if (schema == nullptr) inside.refuse("schema", "is missing", "missing_required_parameter");
  return AnswerSchema{checked(*schema, inside.path("schema")), inside.path("schema")};
}

CallableTool read_tool(std::string name, const json::value* schema, bool is_strict,
                       const std::string& path) {
  json::value arguments(json::object{{"type", "object"}});
  if (schema != nullptr) {
    try {
      arguments = checked(*schema, path);
    } catch (const ApiError&) {
      if (is_strict) throw;
      arguments = checked(arguments, path);
    }
  } else {
    arguments = checked(arguments, path);
  }
  return {std::move(name), std::move(arguments), is_strict};
}

bool read_choice_word(const Fields& fields, std::string_view field, std::string_view word,
                      ToolRules& rules) {
  if (word == "none") return false;
  if (word == "required") {
    if (rules.tools.empty()) fields.refuse(field, "'required' needs 'tools'");
    rules.call = ToolRules::Call::kMust;
  } else if (word != "auto") {
    fields.refuse(
        field,
        fmt::format("'{}' is unknown; expected 'auto', 'none', 'required' or a function", word),
        "unsupported_value");
  }
  return true;
}

void choose_tool(const Fields& fields, std::string_view field, const std::string& name,
                 ToolRules& rules) {
  if (std::ranges::count(rules.tools, name, &CallableTool::name) == 0)
    fields.refuse(field, fmt::format("'{}' is none of the 'tools'", name));
  rules.call = ToolRules::Call::kMust;
  rules.only = name;
  rules.one_call = true;
}

std::optional<TextFormat> answer_rules(const AnswerForm& form, const ToolRules& rules,
                                       const std::optional<AnswerSchema>& schema) {
  const bool must = rules.call == ToolRules::Call::kMust;
  const bool is_strict = std::ranges::any_of(rules.tools, &CallableTool::is_strict);
  if (must) return with_thoughts(form, only_calls(form.tools, rules));
  if (schema) {
    TextFormat answer = json_text(schema->schema);
    if (!rules.tools.empty()) answer = one_of({only_calls(form.tools, rules), std::move(answer)});
    return with_thoughts(form, answer);
  }
  if (!is_strict) return std::nullopt;
  // Before the end of thoughts that have begun, no call does.
  const TextFormat text = text_with_calls(form.tools, rules);
  return form.begins_in_reasoning ? with_thoughts(form, text) : text;
}

}  // namespace halo
