// Any bytes on a connection: answers that are whole, or the connection's end; and the server goes
// on. The handler gets no request that could be read in two ways.
#include <algorithm>
#include <memory>
#include <string>

#include "halo/base/check.h"
#include "halo/server/http.h"
#include "tests/http_client.h"

namespace {

using halo::HttpHeaders;
using halo::HttpRequest;
using halo::test::HttpClient;

void check(bool good) {
  if (!good) __builtin_trap();
}

bool has(const HttpRequest& request, std::string_view name) {
  return !request.header(name).empty();
}

void handle(const std::shared_ptr<halo::Exchange>& exchange) {
  const HttpRequest& request = exchange->request();
  check(request.path.starts_with('/') && !request.method.empty());
  check(!(has(request, "content-length") && has(request, "transfer-encoding")));
  const auto lengths =
      std::ranges::count(request.headers, "content-length", &HttpHeaders::value_type::first);
  check(lengths <= 1);
  if (lengths == 1)
    check(std::to_string(request.body.size()) == request.header("content-length") ||
          request.header("content-length").starts_with('0') || request.method == "CONNECT");
  for (const auto& [name, value] : request.headers) {
    check(name.find_first_of("\r\n: ") == std::string::npos);
    check(value.find_first_of("\r\n") == std::string::npos);
  }
  if (request.path == "/stream") {
    exchange->begin({.content_type = "text/event-stream"});
    exchange->write("data: " + request.body + "\n\n");
    exchange->end();
  } else {
    exchange->answer({.content_type = "text/plain", .body = request.body});
  }
}

halo::HttpServer& server() {
  static halo::HttpServer one(
      "127.0.0.1", 0, {.header_bytes = 4096, .header_fields = 20, .body_bytes = 4096},
      {.refuse = [](const HttpRequest& head) -> std::optional<halo::HttpAnswer> {
         if (head.path != "/refused") return std::nullopt;
         return halo::HttpAnswer{.status = 401};
       },
       .handle = handle,
       .error =
           [](int status, const std::string& message) {
             check(status < 500);
             return halo::HttpAnswer{.status = status, .body = message};
           },
       .headers = [](const HttpRequest&) { return HttpHeaders(); },
       .answered = [](const HttpRequest&, int) {}});
  static const bool serves = (one.serve(), true);
  static_cast<void>(serves);
  return one;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  HttpClient client(server().port());
  client.send({reinterpret_cast<const char*>(data), size});
  client.end_sending();
  while (true) {
    const halo::test::HttpReply reply = client.read(5);
    if (reply.status == 0) break;
    check(reply.status >= 200 && reply.status < 600 && reply.status != 500);
    if (reply.headers.at("connection") == "close") break;
  }
  return 0;
}
