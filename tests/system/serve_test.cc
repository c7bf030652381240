// `halo serve` as a program: what clients send and read, faults, keys, and its end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <thread>

#include "tests/system/served.h"

namespace halo::system_test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(Serve, SaysWhatItServes) {
  const json::value models = server().get("/v1/models");
  EXPECT_EQ(models.at("data").at(0).at("id"), json::value(chat_model().filename().string()));
  EXPECT_EQ(models.at("data").at(0).at("max_model_len"), 2000);
  EXPECT_EQ(server().get("/health").at("status"), "ok");
  EXPECT_EQ(server().get("/tokenizer_info").at("chat_template"), kTemplate);
  EXPECT_EQ(server().get("/openapi.json").at("openapi"), "3.1.0");
  HttpClient client(server().port());
  EXPECT_EQ(client.get("/v1/models/nobody").status, 404);
  EXPECT_EQ(client.get("/slots").status, 404);
  const HttpReply page = client.get("/");
  EXPECT_THAT(page.headers.at("content-security-policy"), HasSubstr("default-src 'none'"));
  EXPECT_THAT(page.body, HasSubstr("/page/app.js"));
  EXPECT_THAT(client.get("/page/app.js").headers.at("content-type"), StartsWith("text/javascript"));
}

TEST(Serve, ItsDescriptionNamesItsRoutes) {
  const json::value all = server().get("/openapi.json");
  for (const auto& [path, methods] : all.at("paths").as_object()) {
    const std::string target(path);
    if (target.find('{') != std::string::npos || target.starts_with("/slots")) continue;
    if (methods.as_object().contains("get")) {
      EXPECT_EQ(HttpClient(server().port()).get(target).status, 200) << target;
    } else {
      EXPECT_EQ(server().post(target, "[]").status, 400) << target;
    }
  }
}

TEST(Serve, TextsAndTokens) {
  const json::value tokens = server().ask("/tokenize", R"({"prompt": "The old dog"})");
  EXPECT_GT(tokens.at("count").as_int64(), 0);
  const std::string back = json::serialize(json::object{{"tokens", tokens.at("tokens")}});
  EXPECT_EQ(server().ask("/detokenize", back).at("prompt"), "The old dog");
  EXPECT_EQ(server()
                .ask("/apply-template", R"({"messages": [{"role": "user", "content": "Hi"}]})")
                .at("prompt"),
            "<user>Hi<assistant>");
  EXPECT_EQ(server().refused("/detokenize", R"({"tokens": [99999999]})", 400).at("param"),
            "tokens");
}

TEST(Serve, CompletionsAreTheSameHoweverTheyAreAsked) {
  const std::string tail = R"(, "max_tokens": 12, "temperature": 0, "ignore_eos": true)";
  const json::value text =
      server().ask("/v1/completions", R"({"prompt": "The old dog")" + tail + "}");
  const json::value& choice = text.at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason"), "length");
  EXPECT_EQ(text.at("usage").at("completion_tokens"), 12);
  const json::value tokens = server().ask("/tokenize", R"({"prompt": "The old dog"})").at("tokens");
  const json::value list =
      server().ask("/v1/completions",
                   fmt::format(R"({{"prompt": [{0}, {0}]{1}}})", json::serialize(tokens), tail));
  ASSERT_EQ(list.at("choices").as_array().size(), 2u);
  EXPECT_EQ(list.at("choices").at(1).at("text"), choice.at("text"));
  const HttpReply stream = server().post(
      "/v1/completions",
      R"({"prompt": "The old dog", "stream": true, "stream_options": {"include_usage": true})" +
          tail + "}");
  EXPECT_THAT(stream.headers.at("content-type"), StartsWith("text/event-stream"));
  EXPECT_TRUE(stream.body.ends_with("data: [DONE]\n\n"));
  std::string joined;
  const auto events = events_of(stream.body);
  for (const json::value& event : events) {
    if (!event.at("choices").as_array().empty())
      joined += event.at("choices").at(0).at("text").as_string();
  }
  EXPECT_EQ(json::value(joined), choice.at("text"));
  EXPECT_EQ(events.back().at("usage").at("completion_tokens"), 12);
}

TEST(Serve, ScoresOfAPromptHaveAnEntryAToken) {
  const json::value whole = server().ask(
      "/v1/completions",
      R"({"prompt": "The old dog follows", "max_tokens": 1, "temperature": 0, "echo": true,
          "logprobs": 1, "seed": 1234})");
  const json::value& logprobs = whole.at("choices").at(0).at("logprobs");
  const auto size = static_cast<size_t>(whole.at("usage").at("prompt_tokens").as_int64());
  const json::array& scores = logprobs.at("token_logprobs").as_array();
  const json::array& tops = logprobs.at("top_logprobs").as_array();
  ASSERT_EQ(scores.size(), size + 1);
  ASSERT_EQ(tops.size(), size + 1);
  EXPECT_TRUE(scores[0].is_null());
  for (size_t i = 1; i < scores.size(); ++i) {
    EXPECT_LE(scores[i].to_number<double>(), 0);
    EXPECT_GE(tops[i].as_object().size(), 1u);
  }
  // Greedy: what was chosen is the likeliest, to the last digit.
  EXPECT_EQ(tops.back().as_object().begin()->value(), scores.back());
  const json::value alone = server().ask(
      "/v1/completions",
      R"({"prompt": "The old dog follows", "max_tokens": 0, "echo": true, "logprobs": 1})");
  const json::array& same =
      alone.at("choices").at(0).at("logprobs").at("token_logprobs").as_array();
  ASSERT_EQ(same.size(), size);
  for (size_t i = 1; i < same.size(); ++i)
    EXPECT_NEAR(same[i].to_number<double>(), scores[i].to_number<double>(), 1e-3);
}

TEST(Serve, SeedsDecideAndStopsEnd) {
  const auto text = [&](const std::string& more) {
    return server().ask("/v1/completions",
                        R"({"prompt": "The", "max_tokens": 16, "temperature": 2)" + more + "}");
  };
  const json::value one = text(R"(, "seed": 5, "n": 2)"), two = text(R"(, "seed": 5, "n": 2)");
  EXPECT_EQ(one.at("choices"), two.at("choices"));
  EXPECT_NE(one.at("choices").at(0).at("text"), one.at("choices").at(1).at("text"));
  const std::string whole(one.at("choices").at(0).at("text").as_string());
  ASSERT_GT(whole.size(), 4u);
  const std::string stop = whole.substr(3, 1);
  if (static_cast<signed char>(stop[0]) > ' ') {
    const json::value cut =
        text(fmt::format(R"(, "seed": 5, "stop": {})", json::serialize(json::value(stop))));
    EXPECT_EQ(cut.at("choices").at(0).at("finish_reason"), "stop");
    EXPECT_EQ(cut.at("choices").at(0).at("text"), json::value(whole.substr(0, whole.find(stop))));
  }
}

TEST(Serve, AnswersConversationsInThreeForms) {
  const std::string messages = R"("messages": [{"role": "user", "content": "The old dog"}])";
  const std::string tail = R"(, "temperature": 0)";
  const json::value chat = server().ask(
      "/v1/chat/completions", "{" + messages + tail + R"(, "max_tokens": 8, "logprobs": true})");
  const json::value& choice = chat.at("choices").at(0);
  const json::value& content = choice.at("message").at("content");
  EXPECT_EQ(choice.at("message").at("role"), "assistant");
  EXPECT_EQ(choice.at("logprobs").at("content").at(0).at("top_logprobs").as_array().size(), 0u);
  const HttpReply stream = server().post(
      "/v1/chat/completions", "{" + messages + tail + R"(, "max_tokens": 8, "stream": true})");
  const auto events = events_of(stream.body);
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events[0].at("choices").at(0).at("delta").at("role"), "assistant");
  std::string joined;
  for (const json::value& event : events) {
    const json::object& delta = event.at("choices").at(0).at("delta").as_object();
    if (const json::value* text = delta.if_contains("content")) joined += text->as_string();
  }
  EXPECT_EQ(json::value(joined), content);

  const json::value response = server().ask(
      "/v1/responses", R"({"input": "The old dog", "max_output_tokens": 8)" + tail + "}");
  EXPECT_EQ(response.at("output").at(0).at("content").at(0).at("text"), content);
  const auto steps = events_of(
      server()
          .post("/v1/responses",
                R"({"input": "The old dog", "max_output_tokens": 8, "stream": true)" + tail + "}")
          .body);
  EXPECT_EQ(steps.front().at("type"), "response.created");
  EXPECT_EQ(steps.back().at("response").at("output").at(0).at("content").at(0).at("text"), content);
  for (size_t i = 0; i < steps.size(); ++i)
    EXPECT_EQ(steps[i].at("sequence_number"), static_cast<int64_t>(i));

  const json::value message =
      server().ask("/v1/messages", "{" + messages + tail + R"(, "max_tokens": 8})");
  EXPECT_EQ(message.at("content").at(0).at("text"), content);
  EXPECT_EQ(events_of(server()
                          .post("/v1/messages",
                                "{" + messages + tail + R"(, "max_tokens": 8, "stream": true})")
                          .body)
                .back()
                .at("type"),
            "message_stop");
  const json::value counted = server().ask("/v1/messages/count_tokens", "{" + messages + "}");
  EXPECT_GT(counted.at("input_tokens").as_int64(), 0);
}

TEST(Serve, SaysWhatIsWrongAndGoesOn) {
  std::string deep =
      R"({"prompt": "a", "user": )" + std::string(100, '[') + std::string(100, ']') + "}";
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"", ""},
      {"{", ""},
      {deep, ""},
      {R"({"prompt": "a", "temperature": NaN})", ""},
      {"{\"prompt\": \"\xff\"}", ""},
      {R"({"prompt": "a", "prompt": "b"})", ""},
      {R"({"prompt": "a", "n": 1000000})", "n"},
      {R"({"prompt": "a", "max_tokens": -5})", "max_tokens"},
      {R"({"prompt": [0, 123456789]})", "prompt"},
      {R"({"prompt": "a", "temperature": 1e999})", ""},
      {R"({"prompt": ""})", "prompt"}};
  for (const auto& [body, param] : bad) {
    const json::value error = server().refused("/v1/completions", body, 400);
    EXPECT_EQ(error.at("type"), "invalid_request_error") << body;
    EXPECT_EQ(error.at("param"), param.empty() ? json::value() : json::value(param)) << body;
  }
  std::string list = "[0";
  for (int i = 0; i < 1999; ++i) list += ",0";
  const json::value full = server().refused("/v1/completions", R"({"prompt": )" + list + "]}", 400);
  EXPECT_EQ(full.at("code"), "context_length_exceeded");
  EXPECT_EQ(full.at("n_prompt_tokens"), 2000);
  EXPECT_EQ(full.at("n_ctx"), 2000);
  EXPECT_EQ(
      server()
          .refused("/v1/completions", R"({"prompt": "a", "max_tokens": 2000, "stream": true})", 400)
          .at("code"),
      "context_length_exceeded");
  HttpClient client(server().port());
  EXPECT_EQ(client.get("/nowhere").status, 404);
  EXPECT_EQ(HttpClient(server().port()).get("/v1/completions").status, 405);
  HttpClient form(server().port());
  form.send("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_EQ(form.read().status, 415);
  HttpClient rebound(server().port());
  rebound.send("GET /v1/models HTTP/1.1\r\nHost: evil.example:8080\r\n\r\n");
  EXPECT_EQ(rebound.read().status, 403);
  EXPECT_EQ(server().get("/health").at("status"), "ok");
}

TEST(Serve, DisconnectsEndWhatTheyAskedForAlone) {
  const std::string body =
      R"({"prompt": "The old dog", "max_tokens": 1500, "ignore_eos": true, "stream": )";
  const json::value before =
      server().ask("/v1/completions", R"({"prompt": "The", "max_tokens": 20, "temperature": 0})");
  std::atomic<bool> done = false;
  json::value during;
  std::thread neighbour([&] {
    during =
        server().ask("/v1/completions", R"({"prompt": "The", "max_tokens": 20, "temperature": 0})");
    done = true;
  });
  for (int i = 0; i < 40; ++i) {
    HttpClient client(server().port());
    client.send(HttpClient::post_text("/v1/completions", body + (i % 2 ? "true}" : "false}")));
    if (i % 4 == 1) client.read_until("data: ");
    if (i % 4 == 3) usleep(3000);
  }
  neighbour.join();
  EXPECT_TRUE(done);
  EXPECT_EQ(during.at("choices"), before.at("choices"));
  server().wait_until_idle();
  EXPECT_GE(server().metric("cancelled_requests_total"), 1);
}

TEST(Serve, KeysGuardAllButLifeAndThePage) {
  const fs::path keys = World::get().folder("keys") += ".txt";
  write_file(keys, "# ours\nsecret-1\nsecret-2\n");
  fs::permissions(keys, fs::perms::owner_read);
  Server guarded({"--api-key-file", keys.string()});
  const std::vector<std::string> gets = {"/health",       "/v1/health",      "/v1/models",
                                         "/v1/models/x",  "/metrics",        "/slots",
                                         "/openapi.json", "/tokenizer_info", "/nowhere"};
  for (const std::string& path : gets)
    EXPECT_EQ(HttpClient(guarded.port()).get(path).status, 401) << path;
  for (const char* path : {"/v1/completions", "/v1/chat/completions", "/v1/responses",
                           "/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize",
                           "/apply-template", "/slots/save", "/slots/restore", "/slots/erase"}) {
    EXPECT_EQ(guarded.post(path, "{}").status, 401) << path;
    EXPECT_EQ(guarded.post(path, "{}", "Authorization: Bearer secret-3\r\n").status, 401) << path;
  }
  EXPECT_EQ(HttpClient(guarded.port()).get("/").status, 200);
  for (const char* header : {"Authorization: Bearer secret-2\r\n", "X-Api-Key: secret-1\r\n"})
    EXPECT_EQ(HttpClient(guarded.port()).get("/v1/models", header).status, 200);
}

TEST(Serve, MoreThanMayWaitIsTurnedAway) {
  Server small({"--max-running", "1", "--max-queued", "1"});
  const std::string body =
      R"({"prompt": "The", "max_tokens": 1900, "ignore_eos": true, "stream": true})";
  HttpClient first(small.port()), second(small.port());
  for (HttpClient* client : {&first, &second}) {
    client->send(HttpClient::post_text("/v1/completions", body));
    ASSERT_TRUE(client->read_until("text/event-stream"));
  }
  const HttpReply third = small.post("/v1/completions", body);
  EXPECT_EQ(third.status, 429);
  EXPECT_EQ(third.headers.at("retry-after"), "1");
  EXPECT_THAT(third.body, HasSubstr("rate_limit_error"));
}

TEST(Serve, ASignalLetsWhatRunsEnd) {
  Server ending;
  HttpClient client(ending.port());
  client.send(HttpClient::post_text(
      "/v1/completions",
      R"({"prompt": "The", "max_tokens": 400, "ignore_eos": true, "stream": true})"));
  ASSERT_TRUE(client.read_until("data: "));
  ending.process().send(SIGTERM);
  int refused = 0;
  for (int i = 0; i < 100 && refused == 0; ++i) {
    try {
      refused = ending.post("/v1/completions", R"({"prompt": "a"})").status;
    } catch (const Error&) {
      break;  // ended already
    }
    if (refused == 200) refused = 0;
    usleep(10'000);
  }
  const HttpReply reply = client.read();
  EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(refused == 503 || refused == 0) << refused;
  const Outcome outcome = ending.process().wait();
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST(Serve, SettingsComeFromAFileTheEnvironmentAndOptions) {
  const fs::path file = World::get().folder("serve") += ".toml";
  write_file(file, "alias = \"named\"\nmax_context = 500\n[http]\nbody_bytes = 2048\n");
  Server set({"--config", file.string(), "--max-context", "600"},
             {"HALO_MAX_CONTEXT=700", "HALO_ALIAS=given"});
  const json::value model = set.get("/v1/models").at("data").at(0);
  EXPECT_EQ(model.at("id"), "given");
  EXPECT_EQ(model.at("max_model_len"), 600);
  EXPECT_EQ(set.post("/tokenize", std::string(2049, ' ')).status, 413);
  // Other commands do not ask for them.
  EXPECT_EQ(run_halo(Process{.arguments = {"tokenize", chat_model().string(), "The"},
                             .environment = {"HALO_PORT=none", "HALO_CONFIG=/nowhere"}})
                .code,
            0);
  expect_error(run_halo(Process{.arguments = {"serve", chat_model().string()},
                                .environment = {"HALO_PORT=none"}}),
               2, {"--port"});
  write_file(file, "aliass = \"named\"\n");
  expect_error(run_halo({"serve", chat_model().string(), "--config", file.string()}), 1,
               {"aliass", "did you mean 'alias'?"});
}

}  // namespace
}  // namespace halo::system_test
