// The orders of events of /v1/responses and /v1/messages, and what their requests become.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/json_text.h"
#include "halo/server/messages.h"
#include "halo/server/responses.h"
#include "tests/testing.h"

namespace halo {
namespace {

using ::testing::ElementsAre;

json::value body(std::string_view text) {
  return parse_json(text, "body");
}

std::vector<json::value> events(const std::string& stream) {
  std::vector<json::value> out;
  for (size_t at = 0; at < stream.size();) {
    const size_t end = stream.find("\n\n", at), data = stream.find("\ndata: ", at);
    json::value event = parse_json(stream.substr(data + 7, end - data - 7), "event");
    // The line before says the same.
    EXPECT_EQ(json::value(stream.substr(at + 7, data - at - 7)), event.at("type"));
    out.push_back(std::move(event));
    at = end + 2;
  }
  return out;
}

std::vector<std::string> types(const std::vector<json::value>& all) {
  std::vector<std::string> out;
  for (const json::value& event : all) out.emplace_back(event.at("type").as_string());
  return out;
}

std::string stream_of(AnswerFormat& format) {
  std::string out = format.begin({.prompt_tokens = 5});
  out += format.piece(0, {.kind = Piece::Kind::kReasoning, .text = "so"}, {});
  out += format.piece(0, {.text = "Hel"}, {});
  out += format.piece(0, {.text = "lo"}, {});
  out += format.piece(0, {.kind = Piece::Kind::kToolCall, .call = {"id1", "f", "{\"x\":1}"}}, {});
  out += format.end(0, {.finish = FinishReason::kToolCalls}, {});
  return out + format.done({.prompt_tokens = 5, .cached_tokens = 2, .completion_tokens = 3});
}

TEST(Responses, EventsInTheirOrder) {
  const auto request = read_responses(body(R"({"input": "a", "instructions": "b"})"));
  const auto format = responses_format(request, "m");
  const auto all = events(stream_of(*format));
  EXPECT_THAT(
      types(all),
      ElementsAre(
          "response.created", "response.in_progress", "response.output_item.added",
          "response.reasoning_summary_part.added", "response.reasoning_summary_text.delta",
          "response.reasoning_summary_text.done", "response.reasoning_summary_part.done",
          "response.output_item.done", "response.output_item.added", "response.content_part.added",
          "response.output_text.delta", "response.output_text.delta", "response.output_text.done",
          "response.content_part.done", "response.output_item.done", "response.output_item.added",
          "response.function_call_arguments.delta", "response.function_call_arguments.done",
          "response.output_item.done", "response.completed"));
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].at("sequence_number"), i);
  EXPECT_EQ(all[0].at("response").at("status"), "in_progress");
  EXPECT_EQ(all[0].at("response").at("instructions"), "b");
  EXPECT_TRUE(all[0].at("response").at("output").as_array().empty());
  EXPECT_EQ(all[12].at("text"), "Hello");
  EXPECT_EQ(all[10].at("item_id"), all[8].at("item").at("id"));
  EXPECT_EQ(all[10].at("output_index"), 1);
  EXPECT_EQ(all[16].at("delta"), "{\"x\":1}");
  const json::value& last = all.back().at("response");
  EXPECT_EQ(last.at("status"), "completed");
  EXPECT_EQ(last.at("output").at(1).at("content").at(0).at("text"), "Hello");
  EXPECT_EQ(last.at("output").at(2).at("call_id"), "id1");
  EXPECT_EQ(last.at("output").at(2).at("id"), all[15].at("item").at("id"));
  EXPECT_EQ(last.at("usage").at("input_tokens_details").at("cached_tokens"), 2);
  EXPECT_EQ(last.at("usage").at("total_tokens"), 8);
}

TEST(Responses, AnAnswerThatWasCutIsIncomplete) {
  const auto request = read_responses(body(R"({"input": "a"})"));
  AnswerParts answer{.pieces = {{.text = "Hel"}}, .finish = FinishReason::kLength};
  const json::value whole = responses_format(request, "m")->whole({answer}, {});
  EXPECT_EQ(whole.at("status"), "incomplete");
  EXPECT_EQ(whole.at("incomplete_details").at("reason"), "max_output_tokens");
  EXPECT_EQ(whole.at("output").at(0).at("status"), "incomplete");
  const auto format = responses_format(request, "m");
  std::string stream = format->begin({});
  stream += format->end(0, {.finish = FinishReason::kLength}, {});
  stream += format->done({});
  EXPECT_EQ(types(events(stream)).back(), "response.incomplete");
  EXPECT_EQ(types(events(format->failed(ApiError(500, "", "", "x")))).back(), "response.failed");
}

TEST(Responses, ItemsBecomeAConversation) {
  const auto request = read_responses(body(R"({"instructions": "i", "input": [
    {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"x\":1}"},
    {"type": "function_call_output", "call_id": "c", "output": "r"}],
    "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "web_search"}]})"));
  EXPECT_EQ(format_json_line(request.chat.conversation.messages),
            R"([{"role":"system","content":"i"},{"role":"user","content":"q"},)"
            R"({"role":"assistant","content":"a","reasoning_content":"t","tool_calls":[{"id":"c",)"
            R"("type":"function","function":{"name":"f","arguments":{"x":1}}}]},)"
            R"({"role":"tool","tool_call_id":"c","content":"r"}])");
  EXPECT_EQ(request.chat.conversation.tools.as_array().size(), 1u);
}

TEST(Responses, WhatNeedsAMemoryIsRefused) {
  for (const char* text :
       {R"({"input": "a", "previous_response_id": "resp_1"})",
        R"({"input": "a", "background": true})", R"({"input": []})", "{}",
        R"({"input": [{"type": "item_reference", "id": "x"}]})",
        R"({"input": "a", "text": {"format": {"type": "json_schema"}}})",
        R"({"input": [{"type": "reasoning"}]})", R"({"input": "a", "tool_choice": "required"})"}) {
    EXPECT_THROW(read_responses(body(text)), ApiError) << text;
  }
}

TEST(Messages, ThoseWithoutTextAreRefused) {
  for (const char* text : {R"({"max_tokens": 5, "messages": [{"role": "user", "content": []}]})",
                           R"({"max_tokens": 5, "messages": []})"})
    EXPECT_THROW(read_anthropic(body(text), true), ApiError) << text;
}

TEST(Messages, EventsInTheirOrder) {
  const auto all = events(stream_of(*anthropic_format("m")));
  EXPECT_THAT(
      types(all),
      ElementsAre("message_start", "ping", "content_block_start", "content_block_delta",
                  "content_block_stop", "content_block_start", "content_block_delta",
                  "content_block_delta", "content_block_stop", "content_block_start",
                  "content_block_delta", "content_block_stop", "message_delta", "message_stop"));
  EXPECT_EQ(all[0].at("message").at("usage").at("input_tokens"), 5);
  EXPECT_EQ(all[3].at("delta").at("type"), "thinking_delta");
  EXPECT_EQ(all[6].at("delta").at("text"), "Hel");
  EXPECT_EQ(all[6].at("index"), 1);
  EXPECT_EQ(format_json_line(all[9].at("content_block")),
            R"({"type":"tool_use","id":"id1","name":"f","input":{}})");
  EXPECT_EQ(all[10].at("delta").at("partial_json"), "{\"x\":1}");
  EXPECT_EQ(all[12].at("delta").at("stop_reason"), "tool_use");
  EXPECT_EQ(all[12].at("usage").at("cache_read_input_tokens"), 2);
}

TEST(Messages, BlocksBecomeAConversation) {
  const ChatRequest request = read_anthropic(body(R"({"max_tokens": 5, "system": "s",
    "stop_sequences": ["x"], "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "messages": [{"role": "user", "content": "q"},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": ""},
      {"type": "text", "text": "a"}, {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [
      {"type": "text", "text": "r"}]}, {"type": "text", "text": "so?"}]}]})"),
                                             true);
  EXPECT_EQ(format_json_line(request.conversation.messages),
            R"([{"role":"system","content":"s"},{"role":"user","content":"q"},)"
            R"({"role":"assistant","content":"a","reasoning_content":"t","tool_calls":[{"id":"c",)"
            R"("type":"function","function":{"name":"f","arguments":{"x":1}}}]},)"
            R"({"role":"tool","tool_call_id":"c","content":"r"},{"role":"user","content":"so?"}])");
  EXPECT_EQ(request.generation.max_tokens, 5);
  EXPECT_THAT(request.generation.stop, ElementsAre("x"));
  EXPECT_TRUE(request.conversation.tool_names.contains("f"));
  EXPECT_THROW(read_anthropic(body(R"({"messages": [{"role": "user", "content": "q"}]})"), true),
               ApiError);
}

TEST(Messages, WholeAnswers) {
  AnswerParts answer{.pieces = {{.text = "Hi"}}, .finish = FinishReason::kStopString, .stop = "x"};
  const json::value whole = anthropic_format("m")->whole({answer}, {.prompt_tokens = 3});
  EXPECT_EQ(format_json_line(whole.at("content")), R"([{"type":"text","text":"Hi"}])");
  EXPECT_EQ(whole.at("stop_reason"), "stop_sequence");
  EXPECT_EQ(whole.at("stop_sequence"), "x");
  EXPECT_EQ(anthropic_error(ApiError(400, "", "", "bad")).at("type"), "error");
}

}  // namespace
}  // namespace halo
