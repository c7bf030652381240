#include "halo/server/http.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <thread>

#include "tests/http_client.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::HttpClient;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::ThrowsMessage;

// Answers with what it got: /echo the body, /stream in pieces, /wait only when told.
class Echo {
 public:
  explicit Echo(const HttpLimits& limits = {}, bool serves = true) {
    HttpHandler handler;
    handler.refuse = [](const HttpRequest& head) -> std::optional<HttpAnswer> {
      if (head.path != "/refused") return std::nullopt;
      return HttpAnswer{.status = 401, .body = "no"};
    };
    handler.handle = [this](const std::shared_ptr<Exchange>& exchange) { handle(exchange); };
    handler.error = [](int status, const std::string& message) {
      return HttpAnswer{.status = status, .content_type = "text/plain", .body = message};
    };
    handler.headers = [](const HttpRequest&) { return HttpHeaders{{"x-test", "1"}}; };
    handler.answered = [this](const HttpRequest&, int) { ++answered; };
    server = std::make_unique<HttpServer>("127.0.0.1", 0, limits, std::move(handler));
    if (serves) server->serve();
  }

  void wait_until_gone() {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(change.wait_for(lock, std::chrono::seconds(20), [&] { return gone > 0; }));
  }

  std::atomic<int> handled = 0, answered = 0;
  std::mutex mutex;
  std::condition_variable change;
  int gone = 0;
  std::shared_ptr<Exchange> waiting;
  std::unique_ptr<HttpServer> server;  // last: its threads use all above

 private:
  void handle(const std::shared_ptr<Exchange>& exchange) {
    ++handled;
    const HttpRequest& request = exchange->request();
    if (request.path == "/throw") throw_error("broken");
    if (request.path == "/wait" || request.path == "/stream") {
      if (request.path == "/stream") {
        exchange->begin({.content_type = "text/event-stream"}, ": ping\n\n");
        exchange->write("first;");
      }
      exchange->when_gone([this] {
        const std::lock_guard lock(mutex);
        ++gone;
        change.notify_all();
      });
      const std::lock_guard lock(mutex);
      waiting = exchange;
      change.notify_all();
      return;
    }
    exchange->answer({.content_type = "text/plain",
                      .body = fmt::format("{} {}?{} {}", request.method, request.path,
                                          request.query, request.body)});
  }
};

int64_t port_of(const Echo& echo) {
  return echo.server->port();
}

std::shared_ptr<Exchange> waiting_of(Echo& echo) {
  std::unique_lock lock(echo.mutex);
  echo.change.wait_for(lock, std::chrono::seconds(20), [&] { return echo.waiting != nullptr; });
  return echo.waiting;
}

// A client that has asked for a stream.
struct OpenStream {
  explicit OpenStream(const HttpLimits& limits) : echo(limits), client(port_of(echo)) {
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    exchange = waiting_of(echo);
  }
  Echo echo;
  HttpClient client;
  std::shared_ptr<Exchange> exchange;  // to write to it
};

// So many that a server that answered at once would be done with the first while others connect.
TEST(Http, WhoConnectsBeforeItServesIsAnsweredThen) {
  Echo echo({}, /*serves=*/false);
  std::deque<HttpClient> clients;
  for (int i = 0; i < 100; ++i) {
    clients.emplace_back(port_of(echo)).send("GET /early HTTP/1.1\r\nHost: a\r\n\r\n");
  }
  EXPECT_EQ(echo.handled, 0);
  EXPECT_EQ(echo.server->connections(), 0);
  echo.server->serve();
  for (HttpClient& client : clients) EXPECT_EQ(client.read().body, "GET /early? ");
}

TEST(Http, WhoConnectedToAServerThatNeverServesIsLetGo) {
  auto echo = std::make_unique<Echo>(HttpLimits(), /*serves=*/false);
  HttpClient client(port_of(*echo));
  client.send("GET /early HTTP/1.1\r\nHost: a\r\n\r\n");
  echo.reset();
  EXPECT_TRUE(client.is_closed());
}

TEST(Http, ItServesOnce) {
  Echo echo;
  EXPECT_THAT([&] { echo.server->serve(); }, ThrowsMessage<Error>(HasSubstr("once")));
  HttpClient client(port_of(echo));
  EXPECT_EQ(client.get("/after").body, "GET /after? ");
}

TEST(Http, AnswersOnAConnectionThatStays) {
  Echo echo;
  HttpClient client(port_of(echo));
  const auto first = client.get("/echo?a=1");
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.body, "GET /echo?a=1 ");
  EXPECT_EQ(first.headers.at("connection"), "keep-alive");
  EXPECT_EQ(first.headers.at("x-test"), "1");
  EXPECT_THAT(first.headers.at("x-request-id"), StartsWith("req-"));
  const auto second = client.post("/echo", "{}", "X-Request-Id: mine-7\r\n");
  EXPECT_EQ(second.body, "POST /echo? {}");
  EXPECT_EQ(second.headers.at("x-request-id"), "mine-7");
  EXPECT_THAT(client.get("/echo", "X-Request-Id: a b\r\n").headers.at("x-request-id"),
              StartsWith("req-"));
  EXPECT_EQ(client.get("/throw").status, 500);
  client.send("HEAD /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(client.read_until("connection: close\r\n"));
  EXPECT_TRUE(client.is_closed());
  EXPECT_EQ(echo.answered, 5);
}

TEST(Http, TwoRequestsInOneSendAreAnsweredInOrder) {
  Echo echo;
  HttpClient client(port_of(echo));
  client.send(HttpClient::post_text("/echo", "one") + HttpClient::post_text("/echo", "two"));
  EXPECT_THAT(client.read().body, HasSubstr("one"));
  EXPECT_THAT(client.read().body, HasSubstr("two"));
}

TEST(Http, ABodyInChunksAndOneThatIsAskedFor) {
  Echo echo;
  HttpClient client(port_of(echo));
  client.send(
      "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: "
      "100-continue\r\n\r\n");
  ASSERT_TRUE(client.read_until("100 Continue\r\n\r\n"));
  client.send("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(client.read().body, "POST /echo? abcde");
}

TEST(Http, StreamsAndPings) {
  OpenStream stream({.ping_seconds = 0.05});
  ASSERT_TRUE(stream.client.read_until(": ping\n\n"));
  stream.exchange->write("second");
  stream.exchange->end();
  stream.exchange->write("never");
  const auto reply = stream.client.read();
  EXPECT_THAT(reply.body, StartsWith("first;"));
  EXPECT_THAT(reply.body, testing::EndsWith("second"));
  EXPECT_EQ(stream.client.get("/echo").status, 200);  // the connection goes on
  HttpClient old(port_of(stream.echo));
  old.send("GET /stream HTTP/1.0\r\n\r\n");
  ASSERT_TRUE(old.read_until("first;"));
}

TEST(Http, OldClientsGetStreamsWithoutChunks) {
  Echo echo;
  HttpClient client(port_of(echo));
  client.send("GET /stream HTTP/1.0\r\n\r\n");
  waiting_of(echo)->end();
  const auto reply = client.read();
  EXPECT_FALSE(reply.headers.contains("transfer-encoding"));
  EXPECT_EQ(reply.body, "first;");
}

TEST(Http, TellsThatTheClientHasGone) {
  for (const char* path : {"/wait", "/stream"}) {
    Echo echo;
    HttpClient client(port_of(echo));
    client.send(fmt::format("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", path));
    const auto exchange = waiting_of(echo);
    EXPECT_FALSE(exchange->gone());
    client.close();
    echo.wait_until_gone();
    EXPECT_TRUE(exchange->gone());
    exchange->answer({});  // of no effect
  }
}

TEST(Http, RefusesWhatIsTooLong) {
  HttpLimits limits;
  limits.header_bytes = 1024;
  limits.body_bytes = 1024;
  limits.header_fields = 8;
  Echo echo(limits);
  const auto status = [&](const std::string& text) {
    HttpClient client(port_of(echo));
    client.send(text);
    const int code = client.read().status;
    EXPECT_TRUE(client.is_closed());
    return code;
  };
  EXPECT_EQ(status("GET /" + std::string(2000, 'a') + " HTTP/1.1\r\n\r\n"), 431);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nA: " + std::string(2000, 'a') + "\r\n\r\n"), 431);
  std::string many = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 9; ++i) many += fmt::format("A{}: b\r\n", i);
  EXPECT_EQ(status(many + "\r\n"), 431);
  EXPECT_EQ(status(HttpClient::post_text("/echo", std::string(1025, 'a'))), 413);
  std::string chunks = "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 9; ++i) chunks += "80\r\n" + std::string(128, 'a') + "\r\n";
  EXPECT_EQ(status(chunks + "0\r\n\r\n"), 413);
  EXPECT_EQ(status("POST /refused HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"), 401);
  HttpClient healthy(port_of(echo));
  EXPECT_EQ(healthy.get("/echo").status, 200);
}

// What makes a server and a proxy disagree on where a request ends.
TEST(Http, RefusesWhatCouldBeReadInTwoWays) {
  Echo echo;
  for (const std::string text : {
           "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
           "POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\nabc",
           "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
           "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
           "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
           "GET / HTTP/1.1\nHost: a\n\n",
           "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
           "GET / HTTP/9.9\r\n\r\n",
           "GET http://elsewhere/ HTTP/1.1\r\n\r\n",
           "\x16\x03\x01 this is TLS",
       }) {
    HttpClient client(port_of(echo));
    client.send(text);
    EXPECT_EQ(client.read().status, 400) << text;
    EXPECT_TRUE(client.is_closed()) << text;
  }
}

TEST(Http, SlowClientsAreLetGo) {
  HttpLimits limits;
  limits.header_seconds = limits.body_seconds = limits.keep_alive_seconds = 0.2;
  Echo echo(limits);
  for (const std::string text :
       {"", "GET / HT", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"}) {
    HttpClient client(port_of(echo));
    client.send(text);
    EXPECT_TRUE(client.is_closed(5)) << text;
  }
  HttpClient idle(port_of(echo));
  EXPECT_EQ(idle.get("/echo").status, 200);
  EXPECT_TRUE(idle.is_closed(5));
}

TEST(Http, AClientThatDoesNotReadIsLetGo) {
  OpenStream stream({.write_seconds = 0.3});
  for (int i = 0; i < 200; ++i) stream.exchange->write(std::string(64 << 10, 'x'));
  stream.echo.wait_until_gone();
}

TEST(Http, MoreConnectionsThanMayBe) {
  HttpLimits limits;
  limits.connections = 2;
  Echo echo(limits);
  HttpClient first(port_of(echo)), second(port_of(echo));
  EXPECT_EQ(first.get("/echo").status, 200);
  EXPECT_EQ(second.get("/echo").status, 200);
  HttpClient third(port_of(echo));
  EXPECT_EQ(third.read().status, 503);
}

TEST(Http, SaysWhereItCannotListen) {
  Echo echo;
  EXPECT_THAT(test::error_of([&] { HttpServer("127.0.0.1", port_of(echo), {}, {}); }),
              HasSubstr("cannot listen on 127.0.0.1"));
  EXPECT_THAT(test::error_of([] { HttpServer("no.such.host.invalid", 0, {}, {}); }),
              HasSubstr("cannot find no.such.host.invalid"));
}

TEST(Http, ManyClientsAtATime) {
  Echo echo;
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      HttpClient client(port_of(echo));
      for (int i = 0; i < 50; ++i) {
        const std::string body = fmt::format("{} {}", t, i);
        good += client.post("/echo", body).body == "POST /echo? " + body;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 400);
}

}  // namespace
}  // namespace halo
