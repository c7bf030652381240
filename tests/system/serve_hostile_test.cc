// `halo serve` among clients that mean it ill, or go away: they end, and nobody else notices.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "halo/base/random.h"
#include "tests/asked.h"
#include "tests/system/served.h"

namespace halo::system_test {
namespace {

using testing::HasSubstr;

constexpr const char* kGreedy =
    R"({"prompt": "The old dog", "max_tokens": 24, "temperature": 0, "ignore_eos": true})";

std::string head(const std::string& target, size_t body_bytes) {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
      "{}\r\n\r\n",
      target, body_bytes);
}

// Whatever was taken is given back: sequences hold as many states as beginnings are kept.
void expect_nothing_leaked(const Server& server) {
  server.wait_until_idle();
  // The connection that asked before may not be closed yet.
  double connections = 0;
  for (int i = 0; i < 500 && (connections = server.metric("connections")) > 1; ++i) usleep(20'000);
  EXPECT_EQ(connections, 1);
  EXPECT_EQ(server.metric("recurrent_state_slots_used"), server.metric("state_snapshots_stored"));
  EXPECT_EQ(server.metric("sequence_tokens"), 0);
}

// Clients that send a byte now and then, in the header or in the body, beside one that is served.
TEST(ServeHostile, SlowClientsAreLetGoWhileOthersAreServed) {
  const fs::path file = World::get().folder("limits") += ".toml";
  write_file(file,
             "[http]\nheader_seconds = 1\nbody_seconds = 1\nwhole_body_seconds = 2\n"
             "keep_alive_seconds = 1\n");
  Server guarded({"--config", file.string()});
  constexpr size_t kClients = 60;
  std::vector<std::unique_ptr<HttpClient>> slow;
  for (size_t i = 0; i < 2 * kClients; ++i) {
    slow.push_back(std::make_unique<HttpClient>(guarded.port()));
    slow.back()->send(i < kClients ? "POST /tokenize HTTP/1.1\r\nA: "
                                   : head("/tokenize", 5000) + "{");
  }
  int served = 0;
  HttpClient healthy(guarded.port());
  for (int i = 0; i < 40; ++i) {
    for (const auto& client : slow) client->send("b");
    served += healthy.post("/tokenize", R"({"prompt": "The old dog"})").status == 200;
    usleep(100'000);
  }
  EXPECT_EQ(served, 40);
  for (const auto& client : slow) EXPECT_TRUE(client->is_closed(5));
  healthy.close();
  expect_nothing_leaked(guarded);
}

// Requests that a proxy in front might end elsewhere: refused, and what is hidden in them is not
// seen.
TEST(ServeHostile, NothingIsSmuggled) {
  const std::string start =
      "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  const std::string hidden = "GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const double before = server().metric("requests_total");
  for (const char* rest : {
           "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
           "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
           "Content-Length: +2\r\n\r\n{}",
           "Content-Length: -2\r\n\r\n{}",
           "Content-Length: 0x2\r\n\r\n{}",
           "Content-Length: 2 2\r\n\r\n{}",
           "Content-Length: 2,3\r\n\r\n{}",
           "Content-Length: \r\n\r\n{}",
           "Content-Length: 18446744073709551618\r\n\r\n{}",
           "Content-Length : 2\r\n\r\n{}",
           "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\n2\r\n{}X\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
           "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: identity\r\n\r\n{}",
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding:\x0b chunked\r\n\r\n0\r\n\r\n",
           "Content-Length: 2\nTransfer-Encoding: chunked\r\n\r\n{}",
           "A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "A\r\n\r\n{}",
           " Content-Length: 2\r\n\r\n{}",
       }) {
    HttpClient client(server().port());
    client.send(start + rest + hidden);
    const HttpReply reply = client.read();
    EXPECT_GE(reply.status, 400) << rest;
    EXPECT_LT(reply.status, 500) << rest;
    EXPECT_NE(reply.status, 404) << rest;
    EXPECT_EQ(client.read(1).status, 0) << rest;
    EXPECT_TRUE(client.is_closed()) << rest;
  }
  EXPECT_EQ(server().get("/health").at("status"), "ok");
  EXPECT_GE(server().metric("requests_total"), before);
}

TEST(ServeHostile, BodiesThatAreWrongAreNamedInEveryApi) {
  const std::string messages = R"("messages": [{"role": "user", "content": "a"}])";
  const std::vector<std::pair<std::string, std::string>> apis = {
      {"/v1/completions", R"("prompt": "a")"},
      {"/v1/chat/completions", messages},
      {"/v1/responses", R"("input": "a")"},
      {"/v1/messages", messages + R"(, "max_tokens": 4)"}};
  const std::string deep = std::string(70, '[') + std::string(70, ']');
  const std::vector<std::pair<std::string, std::string>> fields = {
      {"temperature", "-1"},
      {"temperature", "101"},
      {"temperature", "1e999"},
      {"temperature", "\"1\""},
      {"top_p", "2"},
      {"top_k", "99999999999999999999999"},
      {"min_p", "-0.5"},
      {"n", "9999999999"},
      {"n", "-1"},
      {"n", "1.5"},
      {"seed", "1e300"},
      {"stop", "{}"},
      {"stream", "\"yes\""},
      {"model", "5"},
      {"cache_salt", "[]"},
      {"logit_bias", "[]"},
      {"repetition_penalty", "0"},
      {"presence_penalty", "3"},
      {"response_format", "7"},
      {"stream_options", "[]"},
      {"ignore_eos", "0"}};
  for (const auto& [path, body] : apis) {
    const auto error_of = [&](const std::string& text) {
      const HttpReply reply = server().post(path, text);
      EXPECT_EQ(reply.status, 400) << path << " " << text << reply.body;
      return parse_json(reply.body, path).at("error");
    };
    for (const auto& [field, value] : fields) {
      const json::value error = error_of(fmt::format(R"({{{}, "{}": {}}})", body, field, value));
      const bool is_number = value != "1e999";  // no JSON of ours, wherever it stands
      if (is_number) {
        EXPECT_EQ(error.at("param"), json::value(field)) << path << value;
      }
    }
    for (const std::string& text :
         {std::string(), std::string("{"), std::string("null"), std::string("[]"), std::string("3"),
          std::string("\"a\""), "{" + body + "} x", "{" + body + ", \"a\": " + deep + "}",
          "{" + body + ", \"a\": NaN}", "{" + body + ", \"a\": \"\xc3\x28\"}",
          "{" + body + ", \"a\": \"\\ud800\"}", "{" + body + ", " + body + "}",
          "{" + body + ", \"a\": 1,}", "{" + body + ", \"a\": \"\x01\"}", std::string(3, '\0')})
      error_of(text);
  }
  EXPECT_EQ(server().post("/v1/completions", std::string(1 << 20, '[')).status, 400);
}

// Clients that go in every phase of a request, some of them while their neighbour is answered;
// HALO_DISCONNECTS=10000 has more of them.
TEST(ServeHostile, ThoseWhoGoTakeNothingWithThem) {
  const json::value alone = server().ask("/v1/completions", kGreedy).at("choices");
  std::atomic<bool> done = false;
  std::atomic<int> asked = 0, same = 0;
  std::thread neighbour([&] {
    while (!done) {
      ++asked;
      same += server().ask("/v1/completions", kGreedy).at("choices") == alone;
    }
  });
  const Random random(11, "disconnects");
  std::string words;
  for (int i = 0; i < 300; ++i) words += i % 7 == 0 ? " dog" : " The old";
  const auto clients = static_cast<uint64_t>(test::asked("HALO_DISCONNECTS", 300));
  for (uint64_t i = 0; i < clients; ++i) {
    const auto draw = [&](uint64_t which, int64_t n) { return random.below(8 * i + which, n); };
    // A prompt of its own, so that it is read; or a short one, so that an answer grows.
    const std::string prompt = draw(0, 2) ? fmt::format("{}{}", i, words) : "The";
    const std::string rule = draw(1, 3) ? "" : R"(, "response_format": {"type": "json_object"})";
    const std::string body =
        fmt::format(R"({{"prompt": "{}", "max_tokens": 600, "n": {}, "stream": {}{}{}}})", prompt,
                    1 + draw(2, 3), draw(3, 2) ? "true" : "false",
                    rule.empty() ? R"(, "ignore_eos": true)" : "", rule);
    const std::string text = HttpClient::post_text("/v1/completions", body);
    HttpClient client(server().port());
    switch (draw(4, 5)) {
      case 0:  // within the header or the body
        client.send(text.substr(0, static_cast<size_t>(draw(5, std::ssize(text)))));
        break;
      case 1:  // at once
        client.send(text);
        break;
      case 2:  // a moment later
        client.send(text);
        usleep(static_cast<useconds_t>(draw(5, 20'000)));
        break;
      default:  // in the answer, where it comes in pieces
        client.send(text);
        client.read_until("data: ", 0.02);
        if (draw(5, 2)) client.read_until("data: ", 0.02);
        break;
    }
  }
  done = true;
  neighbour.join();
  EXPECT_EQ(same, asked);
  expect_nothing_leaked(server());
  EXPECT_EQ(server().ask("/v1/completions", kGreedy).at("choices"), alone);
}

}  // namespace
}  // namespace halo::system_test
