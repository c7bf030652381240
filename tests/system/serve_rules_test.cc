// `halo serve`: answers that must be JSON by a schema, and calls that must be made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "halo/grammar/validator_testing.h"
#include "tests/system/served.h"

namespace halo::system_test {
namespace {

using testing::HasSubstr;

constexpr const char* kMessages = R"("messages": [{"role": "user", "content": "The old dog"}])";
constexpr const char* kTools = R"("tools": [
    {"type": "function", "function": {"name": "sit", "strict": true, "parameters": {"type": "object",
     "properties": {"place": {"enum": ["here", "there"]}, "times": {"type": "integer", "minimum": 1,
     "maximum": 9}}, "required": ["place", "times"], "additionalProperties": false}}},
    {"type": "function", "function": {"name": "wait"}}])";
constexpr const char* kSchema =
    R"({"type": "object", "properties": {"kind": {"enum": ["dog", "cat"]},
    "age": {"type": "integer", "minimum": 0, "maximum": 30}}, "required": ["kind", "age"]})";

json::value schema() {
  return parse_json(kSchema, "schema");
}

std::string chat(const std::string& more) {
  return fmt::format("{{{}, \"max_tokens\": 400, \"temperature\": 2, {}}}", kMessages, more);
}

std::string strict_format() {
  return fmt::format(R"("response_format": {{"type": "json_schema", "json_schema": {{"name": "pet",
                     "strict": true, "schema": {}}}}})",
                     kSchema);
}

const json::value& message_of(const json::value& answer, size_t choice = 0) {
  return answer.at("choices").at(choice).at("message");
}

void expect_pet(const json::value& text) {
  ASSERT_TRUE(text.is_string());
  const json::value pet = parse_json(text.as_string(), "answer");
  EXPECT_EQ(test::why_invalid(schema(), pet), "") << json::serialize(pet);
}

#ifdef HALO_HAVE_GRAMMAR

TEST(ServeRules, AnswersAreJsonByTheSchema) {
  std::set<std::string> different;
  for (int seed = 0; seed < 6; ++seed) {
    const json::value answer =
        server().ask("/v1/chat/completions",
                     chat(fmt::format(R"("n": 3, "seed": {}, {})", seed, strict_format())));
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(answer.at("choices").at(i).at("finish_reason"), "stop");
      expect_pet(message_of(answer, i).at("content"));
      different.insert(std::string(message_of(answer, i).at("content").as_string()));
    }
  }
  EXPECT_GT(different.size(), 6u);
}

TEST(ServeRules, TheSameInEveryApiAndInAStream) {
  const std::string greedy = R"(, "temperature": 0, "seed": 1)";
  const std::string format =
      fmt::format(R"({{"type": "json_schema", "name": "pet", "schema": {}}})", kSchema);
  const json::value chat_answer = server().ask(
      "/v1/chat/completions",
      fmt::format("{{{}, \"max_tokens\": 400, {}{}}}", kMessages, strict_format(), greedy));
  const json::value& text = message_of(chat_answer).at("content");
  expect_pet(text);
  const json::value response = server().ask(
      "/v1/responses",
      fmt::format(
          R"({{"input": "The old dog", "max_output_tokens": 400, "text": {{"format": {}}}{}}})",
          format, greedy));
  EXPECT_EQ(response.at("output").at(0).at("content").at(0).at("text"), text);
  EXPECT_EQ(response.at("text").at("format").at("name"), "pet");
  const json::value completion = server().ask(
      "/v1/completions", fmt::format(R"({{"prompt": "The old dog", "max_tokens": 400, {}{}}})",
                                     strict_format(), greedy));
  expect_pet(completion.at("choices").at(0).at("text"));
  const HttpReply stream = server().post(
      "/v1/chat/completions", fmt::format("{{{}, \"max_tokens\": 400, \"stream\": true, {}{}}}",
                                          kMessages, strict_format(), greedy));
  std::string joined;
  for (const json::value& event : events_of(stream.body)) {
    const json::object& delta = event.at("choices").at(0).at("delta").as_object();
    if (const json::value* piece = delta.if_contains("content")) joined += piece->as_string();
  }
  EXPECT_EQ(json::value(joined), text);
}

TEST(ServeRules, AnyObject) {
  const json::value answer =
      server().ask("/v1/completions",
                   R"({"prompt": "The", "max_tokens": 1500, "seed": 3, "temperature": 0.7,
          "response_format": {"type": "json_object"}})");
  const json::value& choice = answer.at("choices").at(0);
  if (choice.at("finish_reason") == "stop") {
    EXPECT_TRUE(parse_json(choice.at("text").as_string(), "answer").is_object());
  }
  EXPECT_EQ(choice.at("text").as_string().front(), '{');
}

TEST(ServeRules, CallsThatMustBeMade) {
  const json::value sit = parse_json(std::string("{") + kTools + "}", "tools")
                              .at("tools")
                              .at(0)
                              .at("function")
                              .at("parameters");
  std::set<std::string> called;
  for (int seed = 0; seed < 8; ++seed) {
    const json::value answer = server().ask(
        "/v1/chat/completions",
        chat(fmt::format(
            R"("seed": {}, "tool_choice": "required", "parallel_tool_calls": false, {})", seed,
            kTools)));
    const json::value& choice = answer.at("choices").at(0);
    if (choice.at("finish_reason") == "length") continue;  // an argument that did not end
    ASSERT_EQ(choice.at("finish_reason"), "tool_calls") << json::serialize(choice);
    const json::array& calls = message_of(answer).at("tool_calls").as_array();
    ASSERT_EQ(calls.size(), 1u);
    const json::value& function = calls[0].at("function");
    const json::value arguments = parse_json(function.at("arguments").as_string(), "arguments");
    called.insert(std::string(function.at("name").as_string()));
    EXPECT_EQ(function.at("name") == "sit" ? test::why_invalid(sit, arguments) : "", "");
    EXPECT_TRUE(message_of(answer).at("content").is_null());
  }
  EXPECT_EQ(called, (std::set<std::string>{"sit", "wait"}));
  const auto expect_sits = [&](const std::string& name, const json::value& arguments) {
    EXPECT_EQ(name, "sit");
    EXPECT_EQ(test::why_invalid(sit, arguments), "");
  };
  const json::value named = server().ask(
      "/v1/chat/completions",
      chat(fmt::format(
          R"("tool_choice": {{"type": "function", "function": {{"name": "sit"}}}}, {})", kTools)));
  const json::value& call = message_of(named).at("tool_calls").at(0).at("function");
  expect_sits(std::string(call.at("name").as_string()),
              parse_json(call.at("arguments").as_string(), ""));
  const std::string tool =
      fmt::format(R"({{"name": "sit", "input_schema": {}}})", json::serialize(sit));
  const json::value message =
      server().ask("/v1/messages", fmt::format(R"({{{}, "max_tokens": 400, "tools": [{}],
                                  "tool_choice": {{"type": "any", "disable_parallel_tool_use": true}}}})",
                                               kMessages, tool));
  expect_sits(std::string(message.at("content").at(0).at("name").as_string()),
              message.at("content").at(0).at("input"));
  const json::value response =
      server().ask("/v1/responses",
                   fmt::format(R"({{"input": "Sit!", "tools": [{{"type": "function", "name": "sit",
                      "parameters": {}}}], "tool_choice": {{"type": "function", "name": "sit"}}}})",
                               json::serialize(sit)));
  const json::value& item = response.at("output").at(0);
  expect_sits(std::string(item.at("name").as_string()),
              parse_json(item.at("arguments").as_string(), ""));
}

// Each for itself, beside requests without rules, with a stop string and with no room to end.
TEST(ServeRules, ManyAtATime) {
  const std::string plain =
      R"({"prompt": "The old", "max_tokens": 30, "temperature": 0, "ignore_eos": true})";
  const json::value alone = server().ask("/v1/completions", plain).at("choices");
  std::vector<json::value> answers(8);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < answers.size(); ++i) {
    threads.emplace_back([&, i] {
      const std::string path = i % 2 == 0 ? "/v1/chat/completions" : "/v1/completions";
      answers[i] = server().ask(
          path, i % 2 == 0 ? chat(fmt::format(R"("seed": {}, {})", i, strict_format())) : plain);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < answers.size(); ++i) {
    if (i % 2 == 0) {
      expect_pet(message_of(answers[i]).at("content"));
    } else {
      EXPECT_EQ(answers[i].at("choices"), alone);
    }
  }
  const json::value cut =
      server().ask("/v1/chat/completions", chat(R"("stop": "age", )" + strict_format()));
  EXPECT_EQ(cut.at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_THAT(std::string(message_of(cut).at("content").as_string()), testing::EndsWith("\""));
  const json::value brief =
      server().ask("/v1/chat/completions",
                   fmt::format("{{{}, \"max_tokens\": 3, {}}}", kMessages, strict_format()));
  EXPECT_EQ(brief.at("choices").at(0).at("finish_reason"), "length");
  EXPECT_EQ(brief.at("usage").at("completion_tokens"), 3);
}

TEST(ServeRules, WhatNoGrammarFollowsIsNamed) {
  const auto refused = [](const std::string& path, const std::string& body) {
    return std::string(server().refused(path, body, 400).at("param").as_string());
  };
  const auto format = [](const std::string& schema) {
    return fmt::format(
        R"("response_format": {{"type": "json_schema", "json_schema": {{"schema": {}}}}})", schema);
  };
  const std::string chats = "/v1/chat/completions";
  EXPECT_EQ(refused(chats, chat(format(R"({"type": "object", "properties": {"a": {"not": {}}}})"))),
            "response_format.json_schema.schema.properties.a.not");
  EXPECT_EQ(refused(chats, chat(format(R"({"$ref": "#"})"))), "response_format.json_schema.schema");
  EXPECT_EQ(refused(chats, chat(R"("response_format": {"type": "xml"})")), "response_format.type");
  EXPECT_EQ(
      refused(chats, chat(R"("response_format": {"type": "json_schema", "json_schema": {}})")),
      "response_format.json_schema.schema");
  EXPECT_EQ(refused(chats, chat(strict_format() + R"(, "ignore_eos": true)")), "ignore_eos");
  EXPECT_EQ(refused(chats, chat(R"("tool_choice": "required")")), "tool_choice");
  EXPECT_EQ(refused(chats,
                    chat(fmt::format(
                        R"("tool_choice": {{"type": "function", "function": {{"name": "x"}}}}, {})",
                        kTools))),
            "tool_choice.function.name");
  const char* tool = R"("tools": [{{"type": "function", "function": {{"name": "f", "strict": {},
                      "parameters": {{"type": "object", "minProperties": 1}}}}}}])";
  EXPECT_EQ(refused(chats, chat(fmt::format(fmt::runtime(tool), "true"))),
            "tools.0.function.parameters.minProperties");
  EXPECT_EQ(server().post(chats, chat(fmt::format(fmt::runtime(tool), "false"))).status, 200);
  EXPECT_EQ(refused("/v1/responses",
                    R"({"input": "a", "text": {"format": {"type": "json_schema", "name": "x",
                        "schema": {"type": "integer", "not": {}}}}})"),
            "text.format.schema.not");
}

#else

TEST(ServeRules, ABuildWithoutGrammarsSaysSo) {
  const json::value error =
      server().refused("/v1/chat/completions", chat(strict_format() + ", " + kTools), 400);
  EXPECT_THAT(std::string(error.at("message").as_string()), HasSubstr("HALO_GRAMMAR=OFF"));
}

#endif

}  // namespace
}  // namespace halo::system_test
