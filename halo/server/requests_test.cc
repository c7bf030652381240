// Bodies of requests: what is read, and what is said of those that are wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/json_text.h"
#include "halo/server/chat.h"
#include "halo/server/completions.h"

namespace halo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

json::value body(std::string_view text) {
  return parse_json(text, "body");
}

template <class Read>
ApiError refusal(Read read, std::string_view text) {
  try {
    read(body(text));
  } catch (const ApiError& error) {
    return error;
  }
  return {0, "", "", "accepted"};
}

ApiError completion_refusal(std::string_view text) {
  return refusal([](const json::value& value) { return read_completion(value); }, text);
}
ApiError chat_refusal(std::string_view text) {
  return refusal([](const json::value& value) { return read_chat(value); }, text);
}

TEST(ApiErrors, HaveTheShapeThatClientsRead) {
  ApiError error = bad_field("messages.0.role", "is unknown");
  error.more = {{"n_ctx", 5}};
  EXPECT_EQ(format_json_line(error.to_json()),
            R"({"error":{"message":"'messages.0.role': is unknown","type":"invalid_request_error",)"
            R"("param":"messages.0.role","code":"invalid_value","n_ctx":5}})");
  ApiError full(429, "queue_full", "", "full");
  full.retry_after = 2;
  EXPECT_THAT(full.answer().headers, ElementsAre(Pair("retry-after", "2")));
  EXPECT_EQ(full.type(), "rate_limit_error");
  EXPECT_EQ(ApiError(503, "", "", "x").to_json().at("error").at("code"), 503);
  EXPECT_EQ(ApiError(401, "", "", "x").type(), "authentication_error");
}

TEST(ToLine, EqualNumbersLookEqualAndNoneIsLost) {
  EXPECT_EQ(format_json_line(json::array{0.1, -12.000000000000002, 1e-7, std::nan("")}),
            "[0.1,-12.000000000000002,1e-07,null]");
}

TEST(Completion, PromptsOfEveryKind) {
  const auto prompts = [](std::string_view prompt) {
    return read_completion(json::object{{"prompt", body(prompt)}}).prompts;
  };
  using Tokens = std::vector<int64_t>;
  EXPECT_EQ(std::get<std::string>(prompts("\"a\"").at(0)), "a");
  EXPECT_EQ(std::get<Tokens>(prompts("[1, 2]").at(0)), (Tokens{1, 2}));
  EXPECT_EQ(std::get<std::string>(prompts("[\"a\", \"b\"]").at(1)), "b");
  EXPECT_EQ(std::get<Tokens>(prompts("[[1], [2, 3]]").at(1)), (Tokens{2, 3}));
  EXPECT_EQ(completion_refusal(R"({})").param(), "prompt");
  EXPECT_EQ(completion_refusal(R"({"prompt": []})").param(), "prompt");
  EXPECT_EQ(completion_refusal(R"({"prompt": [1, "a"]})").param(), "prompt.1");
  EXPECT_EQ(completion_refusal(R"({"prompt": [[1, -1]]})").param(), "prompt.0.1");
  EXPECT_EQ(completion_refusal(R"({"prompt": [{}]})").param(), "prompt.0");
  EXPECT_EQ(completion_refusal(R"([])").status(), 400);
}

TEST(Completion, FieldsThatClientsSend) {
  const CompletionRequest request = read_completion(body(R"({
    "model": "m", "prompt": "a", "max_tokens": 1, "temperature": 0, "top_p": 0.5, "top_k": -1,
    "min_p": 0.1, "n": 2, "stop": ["x", "\n"], "seed": 1234, "stream": true, "logprobs": 1,
    "stream_options": {"include_usage": true}, "echo": true, "logit_bias": {"5": -100},
    "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1, "user": "u",
    "ignore_eos": true, "best_of": 2, "suffix": null, "unheard_of": [1]})"));
  const Generation& generation = request.generation;
  EXPECT_EQ(generation.model, "m");
  EXPECT_EQ(generation.max_tokens, 1);
  EXPECT_EQ(generation.sample.temperature, 0);
  EXPECT_EQ(generation.sample.top_k, 0);
  EXPECT_EQ(generation.sample.min_p, 0.1);
  EXPECT_EQ(generation.sample.repetition_penalty, 1.1);
  EXPECT_THAT(generation.sample.logit_bias, ElementsAre(Pair(5, -100)));
  EXPECT_EQ(generation.n, 2);
  EXPECT_EQ(generation.seed, 1234);
  EXPECT_THAT(generation.stop, ElementsAre("x", "\n"));
  EXPECT_TRUE(generation.stream && generation.include_usage && generation.ignore_eos);
  EXPECT_EQ(generation.top_logprobs, 1);
  EXPECT_TRUE(request.echo);
  EXPECT_THAT(generation.ignored, ElementsAre("unheard_of"));
  EXPECT_EQ(read_completion(body(R"({"prompt": "a"})")).generation.sample.temperature, 1);
  EXPECT_FALSE(read_completion(body(R"({"prompt": "a"})")).generation.max_tokens);
}

TEST(Completion, WrongFieldsAreNamed) {
  for (const auto& [field, text] : std::vector<std::pair<std::string, std::string>>{
           {"max_tokens", "-1"},
           {"max_tokens", "1.5"},
           {"max_tokens", "\"9\""},
           {"max_tokens", "1e300"},
           {"max_tokens", "0"},
           {"temperature", "-0.1"},
           {"temperature", "[]"},
           {"top_p", "1.01"},
           {"top_k", "-2"},
           {"n", "0"},
           {"n", "17"},
           {"n", "99999999999999999999"},
           {"stop", "5"},
           {"stop", "[5]"},
           {"stop",
            "[\"\", \"\", \"\", \"\", \"\", \"\", \"\", \"\", \"\", \"\", \"\", \"\", \"\", "
            "\"\", \"\", \"\", \"\"]"},
           {"logprobs", "21"},
           {"logprobs", "true"},
           {"stream", "1"},
           {"stream_options", "3"},
           {"logit_bias", "{\"5\": 101}"},
           {"logit_bias", "{\"x\": 1}"},
           {"suffix", "\"a\""},
           {"best_of", "3"},
           {"response_format.type", "{\"type\": \"grammar\"}"},
           {"response_format.json_schema.schema.not",
            "{\"type\": \"json_schema\", \"json_schema\": {\"schema\": {\"not\": {}}}}"},
           {"seed", "1.5"},
       }) {
    const ApiError error = completion_refusal(
        fmt::format(R"({{"prompt": "a", "{}": {}}})", field.substr(0, field.find('.')), text));
    EXPECT_EQ(error.status(), 400) << field << " " << text;
    EXPECT_THAT(error.param(), testing::StartsWith(field)) << text;
  }
}

TEST(Chat, MessagesBecomeWhatTemplatesRead) {
  const ChatRequest request = read_chat(body(R"({"messages": [
    {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
      {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
    {"role": "tool", "tool_call_id": "a", "content": "2"}],
    "max_tokens": 5, "max_completion_tokens": 6, "logprobs": true, "top_logprobs": 2,
    "chat_template_kwargs": {"enable_thinking": false}})"));
  EXPECT_EQ(format_json_line(request.conversation.messages),
            R"([{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"},)"
            R"({"role":"assistant","content":"","reasoning_content":"hm","tool_calls":[{"id":"a",)"
            R"("type":"function","function":{"name":"f","arguments":{"x":1}}}]},)"
            R"({"role":"tool","content":"2","tool_call_id":"a"}])");
  EXPECT_EQ(request.generation.max_tokens, 6);
  EXPECT_EQ(request.generation.top_logprobs, 2);
  EXPECT_EQ(request.conversation.variables.at("enable_thinking"), false);
  EXPECT_TRUE(request.add_generation_prompt);
}

TEST(Chat, WrongMessagesAreNamedByTheirPlace) {
  const auto with = [](std::string_view messages) {
    return chat_refusal(fmt::format(R"({{"messages": {}}})", messages)).param();
  };
  EXPECT_EQ(chat_refusal("{}").param(), "messages");
  EXPECT_EQ(with("[]"), "messages");
  EXPECT_EQ(with("{}"), "messages");
  EXPECT_EQ(with("[3]"), "messages.0");
  EXPECT_EQ(with(R"([{"role": "robot", "content": ""}])"), "messages.0.role");
  EXPECT_EQ(with(R"([{"content": ""}])"), "messages.0.role");
  EXPECT_EQ(with(R"([{"role": "user"}])"), "messages.0.content");
  EXPECT_EQ(with(R"([{"role": "user", "content": 3}])"), "messages.0.content");
  EXPECT_EQ(with(R"([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])"),
            "messages.0.content.0.type");
  EXPECT_EQ(with(R"([{"role": "assistant", "tool_calls": [{}]}])"),
            "messages.0.tool_calls.0.function");
}

TEST(Chat, ToolsAreKeptUnlessNoneAreWanted) {
  const std::string head = R"({"messages": [{"role": "user", "content": "Hi"}], "tools": [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])";
  const ChatRequest request = read_chat(body(head + "}"));
  EXPECT_TRUE(request.conversation.tool_names.contains("f"));
  EXPECT_TRUE(request.conversation.tools.is_array());
  EXPECT_TRUE(read_chat(body(head + R"(, "tool_choice": "none"})")).conversation.tools.is_null());
  EXPECT_EQ(chat_refusal(head + R"(, "tool_choice": "any"})").param(), "tool_choice");
  const ToolRules must =
      read_chat(body(head + R"(, "tool_choice": "required", "parallel_tool_calls": false})"))
          .conversation.rules;
  EXPECT_EQ(must.call, ToolRules::Call::kMust);
  EXPECT_TRUE(must.one_call);
  ASSERT_EQ(must.tools.size(), 1u);
  EXPECT_EQ(must.tools[0].arguments.at("additionalProperties"), true);
  EXPECT_EQ(
      read_chat(body(head + R"(, "tool_choice": {"type": "function", "function": {"name": "f"}}})"))
          .conversation.rules.only,
      "f");
  EXPECT_EQ(
      chat_refusal(R"({"messages": [{"role": "user", "content": ""}], "tools": [{"type": "x"}]})")
          .param(),
      "tools.0.type");
  EXPECT_EQ(chat_refusal(R"({"messages": [{"role": "user", "content": ""}],
                             "tools": [{"type": "function", "function": {}}]})")
                .param(),
            "tools.0.function.name");
}

TEST(Chat, ToolsOfAModelWithoutAPlaceForThem) {
  Conversation conversation;
  conversation.messages = body(R"([{"role": "user", "content": "Hi"}])").as_array();
  conversation.tools = body(R"([{"type": "function", "function": {"name": "f"}}])");
  describe_tools(conversation);
  EXPECT_TRUE(conversation.tools.is_null());
  ASSERT_EQ(conversation.messages.size(), 2u);
  const std::string said(conversation.messages[0].at("content").as_string());
  EXPECT_THAT(said, HasSubstr("{\"name\":\"f\"}"));
  EXPECT_THAT(said, HasSubstr("<tool_call>"));
}

}  // namespace
}  // namespace halo
