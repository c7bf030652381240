#include "halo/server/tool_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace halo {
namespace {

using Kind = Piece::Kind;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

Piece text(const std::string& words) {
  return {.kind = Kind::kText, .text = words};
}
Piece thought(const std::string& words) {
  return {.kind = Kind::kReasoning, .text = words};
}
Piece call(const std::string& name, const std::string& arguments) {
  return {.kind = Kind::kToolCall, .call = {.name = name, .arguments = arguments}};
}

// What comes out of a text that arrives `size` bytes at a time, neighbours joined.
std::vector<Piece> parse(const AnswerForm& form, const std::string& answer, size_t size) {
  AnswerParser parser(form);
  std::vector<Piece> out;
  const auto add = [&](std::vector<Piece> pieces) {
    for (Piece& piece : pieces) {
      if (piece.kind != Kind::kToolCall && !out.empty() && out.back().kind == piece.kind) {
        out.back().text += piece.text;
      } else {
        out.push_back(std::move(piece));
      }
    }
  };
  for (size_t i = 0; i < answer.size(); i += size) add(parser.push(answer.substr(i, size)));
  add(parser.finish());
  return out;
}

// The same however the text arrives.
std::vector<Piece> parse(const AnswerForm& form, const std::string& answer) {
  std::vector<Piece> whole = parse(form, answer, std::max<size_t>(answer.size(), 1));
  for (size_t size = 1; size < answer.size(); ++size) {
    EXPECT_EQ(parse(form, answer, size), whole) << answer << " in pieces of " << size;
  }
  return whole;
}

AnswerForm with(ToolFormat tools) {
  return {.tools = tools, .tool_names = {"weather", "time"}};
}

TEST(AnswerParser, TextStaysTextWithoutToolsAndThoughts) {
  const std::string answer =
      "\n <tool_call>{\"name\": \"weather\"}</tool_call> <think>x</think> \n";
  EXPECT_THAT(parse({}, answer), ElementsAre(text(answer)));
}

TEST(AnswerParser, TaggedCalls) {
  EXPECT_THAT(
      parse(with(ToolFormat::kTags),
            "Let me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": "
            "\"K\u00f6ln\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"time\", \"arguments\": {}}"
            "\n</tool_call>"),
      ElementsAre(text("Let me look."), call("weather", "{\"city\":\"K\u00f6ln\"}"),
                  call("time", "{}")));
  // A list in one tag; arguments that are JSON in a text; text behind.
  EXPECT_THAT(parse(with(ToolFormat::kTags),
                    "<tool_call>[{\"name\": \"weather\", \"arguments\": \"{\\\"a\\\":1}\"}, "
                    "{\"name\": \"time\"}]</tool_call>\n\nDone."),
              ElementsAre(call("weather", "{\"a\":1}"), call("time", "{}"), text("Done.")));
}

TEST(AnswerParser, WhatIsNoCallIsText) {
  EXPECT_THAT(parse(with(ToolFormat::kTags), "<tool_call>{\"name\": 3}</tool_call>"),
              ElementsAre(text("<tool_call>{\"name\": 3}</tool_call>")));
  EXPECT_THAT(parse(with(ToolFormat::kTags), "<tool_call>{\"name\": \"weather\", "),
              ElementsAre(text("<tool_call>{\"name\": \"weather\", ")));
  EXPECT_THAT(parse(with(ToolFormat::kTags), "a <tool_ b"), ElementsAre(text("a <tool_ b")));
  EXPECT_THAT(parse(with(ToolFormat::kTags), "a\n\nb \n"), ElementsAre(text("a\n\nb \n")));
}

TEST(AnswerParser, MarksInTextsOfACallAreText) {
  EXPECT_THAT(parse(with(ToolFormat::kTags),
                    "<tool_call>{\"name\": \"time\", \"arguments\": {\"a\": \"\\\"</tool_call>\"}}"
                    "</tool_call>"),
              ElementsAre(call("time", "{\"a\":\"\\\"</tool_call>\"}")));
  EXPECT_THAT(parse(with(ToolFormat::kMistral),
                    "[TOOL_CALLS][{\"name\": \"time\", \"arguments\": {\"a\": \"[TOOL_CALLS]\"}}]"),
              ElementsAre(call("time", "{\"a\":\"[TOOL_CALLS]\"}")));
}

// What parsers of clients may take, and ours does not.
TEST(AnswerParser, ArgumentsComeAsTheyAreWrittenWhereTheyAreOddJson) {
  const std::string odd = R"({"a": 1E999, "a": "\ud800", "b": {"a": 1}})";
  EXPECT_THAT(parse(with(ToolFormat::kTags),
                    R"(<tool_call>{"name": "time", "arguments": )" + odd + "}</tool_call>"),
              ElementsAre(call("time", odd)));
  EXPECT_THAT(
      parse(with(ToolFormat::kTags), R"(<tool_call>[{"name": "time", "arguments": )" + odd +
                                         R"(}, {"name": "weather", "arguments": {}}]</tool_call>)"),
      ElementsAre(call("time", odd), call("weather", "{}")));
  EXPECT_THAT(parse(with(ToolFormat::kMistral), "[TOOL_CALLS]time[ARGS]" + odd),
              ElementsAre(call("time", odd)));
  EXPECT_THAT(parse(with(ToolFormat::kLlama), R"({"name": "time", "parameters": )" + odd + "}"),
              ElementsAre(call("time", odd)));
  const std::string none = R"(<tool_call>{"name": 3, "arguments": {"a": 1, "a": 2}}</tool_call>)";
  EXPECT_THAT(parse(with(ToolFormat::kTags), none), ElementsAre(text(none)));
}

TEST(AnswerParser, ACallWhoseEndIsMissingCounts) {
  EXPECT_THAT(parse(with(ToolFormat::kTags), "<tool_call>{\"name\": \"time\", \"arguments\": {}}"),
              ElementsAre(call("time", "{}")));
}

TEST(AnswerParser, MistralsCalls) {
  EXPECT_THAT(
      parse(with(ToolFormat::kMistral),
            "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"n\": 1.5}}, {\"name\": "
            "\"time\", \"arguments\": {}}]"),
      ElementsAre(call("weather", "{\"n\":1.5}"), call("time", "{}")));
  EXPECT_THAT(parse(with(ToolFormat::kMistral),
                    "Sure.[TOOL_CALLS]weather[CALL_ID]abc[ARGS]{\"n\": 1}[TOOL_CALLS]time{}"),
              ElementsAre(text("Sure."), call("weather", "{\"n\": 1}"), call("time", "{}")));
  EXPECT_THAT(parse(with(ToolFormat::kMistral), "[TOOL_CALLS] nothing"),
              ElementsAre(text("[TOOL_CALLS] nothing")));
}

TEST(AnswerParser, LlamasCalls) {
  EXPECT_THAT(
      parse(with(ToolFormat::kLlama),
            "{\"name\": \"weather\", \"parameters\": {\"city\": \"a; b\"}}; {\"name\": \"time\", "
            "\"parameters\": {}}"),
      ElementsAre(call("weather", "{\"city\":\"a; b\"}"), call("time", "{}")));
  EXPECT_THAT(
      parse(with(ToolFormat::kLlama), "<|python_tag|>{\"name\": \"x\", \"parameters\": {}}"),
      ElementsAre(call("x", "{}")));
  // An answer in JSON names no function of the request.
  EXPECT_THAT(parse(with(ToolFormat::kLlama), "{\"name\": \"Ada\"}"),
              ElementsAre(text("{\"name\": \"Ada\"}")));
  EXPECT_THAT(parse(with(ToolFormat::kLlama), "Say {\"name\": \"time\"}"),
              ElementsAre(text("Say {\"name\": \"time\"}")));
}

TEST(AnswerParser, Thoughts) {
  AnswerForm form{.has_reasoning = true};
  EXPECT_THAT(parse(form, "<think>\nhm, <b>\n</think>\n\nYes.\n"),
              ElementsAre(thought("hm, <b>"), text("Yes.\n")));
  EXPECT_THAT(parse(form, "<think>\n\n</think>\n\nYes"), ElementsAre(text("Yes")));
  EXPECT_THAT(parse(form, "No <think> here"), ElementsAre(text("No <think> here")));
  EXPECT_THAT(parse(form, "<think>cut"), ElementsAre(thought("cut")));
  form.begins_in_reasoning = true;
  form.tools = ToolFormat::kTags;
  EXPECT_THAT(parse(form, "\nso</think>\n<tool_call>{\"name\": \"f\"}</tool_call>"),
              ElementsAre(thought("so"), call("f", "{}")));
}

TEST(AnswerParser, NothingComesOfNothing) {
  EXPECT_THAT(parse(with(ToolFormat::kTags), ""), IsEmpty());
  AnswerParser parser(with(ToolFormat::kTags));
  EXPECT_FALSE(parser.has_calls());
}

TEST(AnswerParser, CallsHaveNamesOfTheirOwn) {
  AnswerParser parser(with(ToolFormat::kTags));
  const auto pieces = parser.push("<tool_call>[{\"name\": \"a\"}, {\"name\": \"a\"}]</tool_call>");
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_TRUE(parser.has_calls());
  EXPECT_EQ(pieces[0].call.id.size(), 9u);
  EXPECT_NE(pieces[0].call.id, pieces[1].call.id);
}

TEST(ToolFormat, IsToldByTheTemplate) {
  EXPECT_EQ(tool_format_of("... <tool_call> ..."), ToolFormat::kTags);
  EXPECT_EQ(tool_format_of("[TOOL_CALLS]"), ToolFormat::kMistral);
  EXPECT_EQ(tool_format_of("<|start_header_id|> \"parameters\""), ToolFormat::kLlama);
  EXPECT_EQ(tool_format_of("{{ messages }}"), ToolFormat::kTags);
}

}  // namespace
}  // namespace halo
