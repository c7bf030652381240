// What the APIs answer, whole and in events.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/json_text.h"
#include "halo/server/chat.h"
#include "halo/server/completions.h"

namespace halo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The data of events, parsed; "[DONE]" as text.
std::vector<json::value> events(const std::string& stream) {
  std::vector<json::value> out;
  size_t at = 0;
  while (at < stream.size()) {
    const size_t end = stream.find("\n\n", at);
    const std::string event = stream.substr(at, end - at);
    EXPECT_TRUE(event.starts_with("data: ")) << event;
    const std::string data = event.substr(6);
    out.push_back(data == "[DONE]" ? json::value(data) : parse_json(data, "event"));
    at = end + 2;
  }
  return out;
}

ScoredToken scored(int64_t id, const std::string& bytes, double logprob) {
  ScoredToken token;
  token.id = id;
  token.bytes = bytes;
  token.logprob = logprob;
  token.top = {{id, bytes, logprob}};
  return token;
}

const Usage kUsage{.prompt_tokens = 7,
                   .cached_tokens = 4,
                   .completion_tokens = 2,
                   .prefill_seconds = 0.5,
                   .decode_seconds = 0.25};

TEST(CompletionFormat, ScoresHaveAnEntryAToken) {
  CompletionRequest request;
  request.echo = true;
  request.generation.top_logprobs = 1;
  AnswerParts answer;
  answer.pieces = {{.text = " b"}};
  answer.prompt_text = "a";
  answer.prompt_tokens = {scored(1, "a", 0)};
  answer.tokens = {scored(2, " b", -0.5), scored(3, "\xe2\x82", -1.25)};
  answer.tokens[1].top = {{9, "\xe2\x82", -0.25}};
  answer.finish = FinishReason::kLength;
  const json::value whole = completion_format(request, "m")->whole({answer}, kUsage);
  const json::value& choice = whole.at("choices").at(0);
  EXPECT_EQ(choice.at("text"), "a b");
  EXPECT_EQ(choice.at("finish_reason"), "length");
  const json::value& logprobs = choice.at("logprobs");
  EXPECT_EQ(format_json_line(logprobs.at("token_logprobs")), "[null,-0.5,-1.25]");
  EXPECT_EQ(format_json_line(logprobs.at("tokens")), R"(["a"," b","bytes:\\xe2\\x82"])");
  // Two tokens with one name stay apart, and the chosen one is always there.
  EXPECT_EQ(format_json_line(logprobs.at("top_logprobs")),
            R"([null,{" b":-0.5},{"bytes:\\xe2\\x82":-1.25,"token_id:9":-0.25}])");
  EXPECT_EQ(format_json_line(whole.at("usage")),
            R"({"prompt_tokens":7,"completion_tokens":2,"total_tokens":9,)"
            R"("prompt_tokens_details":{"cached_tokens":4}})");
  EXPECT_EQ(whole.at("timings").at("prompt_n"), 3);
  EXPECT_EQ(whole.at("object"), "text_completion");
  EXPECT_TRUE(whole.at("created").is_int64());
}

TEST(ChatFormat, WholeAnswers) {
  AnswerParts answer;
  answer.pieces = {{.kind = Piece::Kind::kReasoning, .text = "hm"},
                   {.kind = Piece::Kind::kToolCall, .call = {"id1", "f", "{}"}}};
  answer.finish = FinishReason::kToolCalls;
  const json::value whole = chat_format({}, "m")->whole({answer, {}}, kUsage);
  EXPECT_EQ(format_json_line(whole.at("choices").at(0)),
            R"({"index":0,"message":{"role":"assistant","content":null,"refusal":null,)"
            R"("reasoning_content":"hm","tool_calls":[{"id":"id1","type":"function","function":)"
            R"({"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"})");
  EXPECT_EQ(format_json_line(whole.at("choices").at(1).at("message")),
            R"({"role":"assistant","content":"","refusal":null})");
}

TEST(ChatFormat, EventsComeInTheOrderThatClientsExpect) {
  ChatRequest request;
  request.generation.include_usage = true;
  request.generation.top_logprobs = 0;
  const auto format = chat_format(request, "m");
  std::string stream = format->begin(kUsage);
  const std::vector<ScoredToken> tokens = {scored(1, "Hi", -0.5)};
  stream += format->piece(0, {.text = "Hi"}, tokens);
  stream += format->piece(0, {.kind = Piece::Kind::kToolCall, .call = {"a", "f", "{\"x\":1}"}}, {});
  stream += format->piece(0, {.kind = Piece::Kind::kToolCall, .call = {"b", "g", "{}"}}, {});
  stream += format->end(0, {.finish = FinishReason::kToolCalls}, {});
  stream += format->done(kUsage);
  const auto all = events(stream);
  ASSERT_EQ(all.size(), 9u);
  const auto delta = [&](size_t i) { return all[i].at("choices").at(0).at("delta"); };
  EXPECT_EQ(format_json_line(delta(0)), R"({"role":"assistant","content":""})");
  EXPECT_EQ(format_json_line(delta(1)), R"({"content":"Hi"})");
  EXPECT_EQ(all[1].at("choices").at(0).at("logprobs").at("content").as_array().size(), 1u);
  EXPECT_EQ(format_json_line(delta(2)),
            R"({"tool_calls":[{"index":0,"id":"a","type":"function","function":)"
            R"({"name":"f","arguments":""}}]})");
  EXPECT_EQ(format_json_line(delta(3)),
            R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":1}"}}]})");
  EXPECT_EQ(delta(4).at("tool_calls").at(0).at("index"), 1);
  EXPECT_EQ(all[6].at("choices").at(0).at("finish_reason"), "tool_calls");
  EXPECT_TRUE(all[5].at("choices").at(0).at("finish_reason").is_null());
  EXPECT_TRUE(all[7].at("choices").as_array().empty());
  EXPECT_EQ(all[7].at("usage").at("total_tokens"), 9);
  EXPECT_EQ(all[8], "[DONE]");
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(all[i].at("id"), all[0].at("id"));
    EXPECT_EQ(all[i].at("object"), "chat.completion.chunk");
  }
}

TEST(ChatFormat, UsageAndProgressComeOnlyWhereAskedFor) {
  ChatRequest request;
  EXPECT_EQ(chat_format(request, "m")->done(kUsage), "data: [DONE]\n\n");
  EXPECT_EQ(chat_format(request, "m")->progress(1, 2), "");
  request.generation.return_progress = true;
  EXPECT_THAT(chat_format(request, "m")->progress(1, 2),
              HasSubstr(R"("prompt_progress":{"processed":1,"total":2})"));
  request.generation.n = 2;
  EXPECT_EQ(events(chat_format(request, "m")->begin(kUsage)).at(1).at("choices").at(0).at("index"),
            1);
}

TEST(Formats, AFaultIsAnEventAndTheLast) {
  const auto all = events(chat_format({}, "m")->failed(ApiError(500, "c", "", "broke")));
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].at("error").at("message"), "broke");
}

TEST(Formats, IdsDiffer) {
  EXPECT_NE(make_id("x-"), make_id("x-"));
  EXPECT_EQ(make_id("x-").size(), 26u);
}

}  // namespace
}  // namespace halo
