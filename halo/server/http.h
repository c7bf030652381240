// HTTP/1.1 over TCP: reads requests within limits, hands each to a handler, writes its answer, and
// tells it when the client has gone. It knows no route and no model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "halo/base/settings.h"
#include "halo/server/exchange.h"

namespace halo {

struct HttpLimits {
  int64_t header_bytes = 16 << 10, header_fields = 100;
  int64_t body_bytes = 32 << 20;
  int64_t pending_body_bytes = 512 << 20;  // of all requests that are being read
  int64_t connections = 1024;
  double header_seconds = 10;  // from a request's first byte to the end of its header
  double body_seconds = 30;    // between two pieces of a body
  double whole_body_seconds = 600;
  double write_seconds = 60;       // until a client takes what it was sent
  double keep_alive_seconds = 75;  // between two requests
  double ping_seconds = 15;        // without anything to send in a stream

  void settings(Settings& s) {
    s("header_bytes", header_bytes,
      {.help = "of a request's line and header", .min = 1024, .max = 1 << 20});
    s("header_fields", header_fields, {.help = "of a request", .min = 8, .max = 10'000});
    s("body_bytes", body_bytes,
      {.help = "of a request's body; a million tokens are 8 MB", .min = 1024, .max = 1 << 30});
    s("pending_body_bytes", pending_body_bytes,
      {.help = "of all bodies that are being read", .min = 1024, .max = kMaxCount});
    s("connections", connections, {.help = "at a time", .min = 1, .max = 100'000});
    s("header_seconds", header_seconds, {.help = "for a request's header", .min = 0.1});
    s("body_seconds", body_seconds, {.help = "without a byte of a body", .min = 0.1});
    s("whole_body_seconds", whole_body_seconds, {.help = "for a whole body", .min = 0.1});
    s("write_seconds", write_seconds,
      {.help = "until a client takes what it was sent", .min = 0.1});
    s("keep_alive_seconds", keep_alive_seconds, {.help = "between two requests", .min = 0.1});
    s("ping_seconds", ping_seconds, {.help = "between signs of life in a stream", .min = 0.05});
  }
};

struct HttpHandler {
  // Asked once the header is there, on a thread that must not wait; an answer refuses the request
  // before its body is read, and the connection ends.
  std::function<std::optional<HttpAnswer>(const HttpRequest& head)> refuse;
  // On a thread that may compute. What it throws becomes the answer of `error`, as do requests that
  // are none.
  std::function<void(const std::shared_ptr<Exchange>&)> handle;
  std::function<HttpAnswer(int status, const std::string& message)> error;
  // Further headers of every answer to a request.
  std::function<HttpHeaders(const HttpRequest&)> headers;
  // Once for every answer, as it begins.
  std::function<void(const HttpRequest&, int status)> answered;
};

class HttpServer {
 public:
  // Listens; port 0: any that is free. An Error where it cannot listen there. Who connects waits
  // for serve(), so that what the handler refers to can be finished, this among it.
  HttpServer(const std::string& host, int64_t port, const HttpLimits& limits, HttpHandler handler);
  ~HttpServer();  // ends all connections
  HttpServer(const HttpServer&) = delete;
  void serve();  // from now on; once

  int64_t port() const;
  bool is_loopback() const;
  int64_t connections() const;
  // Requests whose answers are not sent yet.
  int64_t exchanges() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
