// One request over HTTP and its answer, which may come whole or piece by piece from any thread. The
// connection (http.h) fills in the request and takes the pieces; who answers need not know it.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace halo {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method, path, query;
  HttpHeaders headers;  // names in lower case
  std::string body;
  std::string id;  // for people who look for this request in a log

  // Empty where there is none.
  std::string_view header(std::string_view name) const;
};

struct HttpAnswer {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpHeaders headers;
};

class Exchange {
 public:
  // `wake` is called whenever there is something to take.
  Exchange(HttpRequest request, std::function<void()> wake)
      : request_(std::move(request)), wake_(std::move(wake)) {}
  Exchange(const Exchange&) = delete;

  const HttpRequest& request() const { return request_; }
  // Leaves the request without its body, which may be large; for who handles it.
  std::string take_body() { return std::exchange(request_.body, {}); }

  // Any thread. Either answer(), or begin(), write()... and end(). What comes after the end, or
  // after the client went, is dropped.
  void answer(HttpAnswer answer);
  // `ping` is sent whenever nothing else was for a while.
  void begin(HttpAnswer head, std::string ping = "");
  void write(std::string_view piece);
  void end();
  bool begun() const;
  bool gone() const;
  // Called once, on another thread or at once, if the client goes before the end.
  void when_gone(std::function<void()> action);

  // The connection's side.
  struct Output {
    std::optional<HttpAnswer> head;  // once, before any bytes
    bool in_pieces = false;          // `head` has no body of its own: it follows as bytes
    std::string bytes;
    bool ended = false;  // nothing comes after these bytes
  };
  Output take(size_t max_bytes);
  std::string ping() const;
  void set_gone();

 private:
  HttpRequest request_;
  const std::function<void()> wake_;
  mutable std::mutex mutex_;
  std::optional<HttpAnswer> head_;
  bool begun_ = false, in_pieces_ = false, ended_ = false, gone_ = false;
  std::string bytes_, ping_;
  size_t taken_ = 0;  // of bytes_
  std::function<void()> when_gone_;
};

}  // namespace halo
