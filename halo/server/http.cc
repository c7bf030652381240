// Boost.Beast parses requests; answers are written as text. One coroutine a connection, on a
// strand.
#include "halo/server/http.h"

#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <random>
#include <thread>

#include "halo/base/check.h"

namespace halo {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Tcp = asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using Parser = http::request_parser<http::string_body>;

constexpr auto kResult = asio::as_tuple(asio::use_awaitable);
constexpr size_t kMaxWrite = 64 << 10;
constexpr size_t kReadAtOnce = 8 << 10;

std::chrono::nanoseconds seconds(double number) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>(number));
}

struct Shared {
  HttpLimits limits;
  HttpHandler handler;
  asio::thread_pool workers{2};
  std::atomic<int64_t> connections = 0, exchanges = 0, pending_body = 0;
  std::atomic<uint64_t> next_id = std::random_device()() * uint64_t{0x100000000};
};

// Adds to a count as long as it lives.
class Counted {
 public:
  explicit Counted(std::atomic<int64_t>& count) : count_(count) {}
  ~Counted() { count_ -= added_; }
  Counted(const Counted&) = delete;
  int64_t add(int64_t n) {
    added_ += n;
    return count_ += n;
  }

 private:
  std::atomic<int64_t>& count_;
  int64_t added_ = 0;
};

// A request that is none, or is refused.
struct Refused {
  HttpAnswer answer;
};

// How a client knows where a body ends.
enum class Framing { kLength, kChunked, kClose };

std::string head_of(const HttpAnswer& answer, const HttpRequest& request, bool keep_alive,
                    Framing framing) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(answer.status));
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nserver: halo\r\n", answer.status,
                                 std::string_view(reason.data(), reason.size()));
  if (!answer.content_type.empty()) head += "content-type: " + answer.content_type + "\r\n";
  if (framing == Framing::kChunked) head += "transfer-encoding: chunked\r\n";
  if (framing == Framing::kLength) {
    head += fmt::format("content-length: {}\r\n", answer.body.size());
  }
  head += fmt::format("connection: {}\r\nx-request-id: {}\r\nx-content-type-options: nosniff\r\n",
                      keep_alive ? "keep-alive" : "close", request.id);
  for (const auto& [name, value] : answer.headers) head += name + ": " + value + "\r\n";
  return head + "\r\n";
}

// Letters that may stand in a log and in a header.
bool is_plain_id(std::string_view id) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.';
  };
  return !id.empty() && id.size() <= 64 && std::ranges::all_of(id, plain);
}

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Tcp::socket socket, Shared& shared)
      : stream_(std::move(socket)), wake_(stream_.get_executor()), shared_(shared) {
    connection_.add(1);
  }

  auto executor() { return stream_.get_executor(); }

  asio::awaitable<void> run() {
    for (bool first = true; keep_alive_; first = false) {
      HttpRequest request;
      std::optional<HttpAnswer> refused;
      bool there = false;
      try {
        there = co_await read(request, first);
      } catch (const Refused& what) {
        refused = what.answer;
      }
      if (refused) {
        keep_alive_ = false;
        co_await send_text(begin(*refused, request, Framing::kLength) + refused->body);
        break;
      }
      if (!there) co_return;
      if (!co_await answer(std::move(request))) co_return;
    }
    co_await linger();
  }

 private:
  [[noreturn]] void refuse(int status, const std::string& message) const {
    throw Refused{shared_.handler.error(status, message)};
  }

  // False: the client has gone.
  asio::awaitable<bool> read(HttpRequest& request, bool first) {
    const HttpLimits& limits = shared_.limits;
    request.id = fmt::format("req-{:x}", shared_.next_id++);
    keep_alive_ = false;
    if (first && connection_.add(0) > limits.connections) refuse(503, "too many connections");
    if (buffer_.size() == 0) {
      stream_.expires_after(seconds(first ? limits.header_seconds : limits.keep_alive_seconds));
      const auto [error, count] =
          co_await stream_.async_read_some(buffer_.prepare(kReadAtOnce), kResult);
      if (error) co_return false;
      buffer_.commit(count);
    }
    Parser parser;
    parser.header_limit(static_cast<uint32_t>(limits.header_bytes));
    parser.body_limit(static_cast<uint64_t>(limits.body_bytes));
    stream_.expires_after(seconds(limits.header_seconds));
    const auto [error, count] = co_await http::async_read_header(stream_, buffer_, parser, kResult);
    if (error && !check(error)) co_return false;
    read_head(parser, request);
    keep_alive_ = parser.get().keep_alive();
    version_ = parser.get().version();
    if (auto answer = shared_.handler.refuse(request)) throw Refused{std::move(*answer)};
    if (!parser.is_done() && !co_await read_body(parser)) co_return false;
    request.body = std::move(parser.get().body());
    co_return true;
  }

  // False: nobody is there to be told. Throws what is to be told.
  bool check(const beast::error_code& error) const {
    const HttpLimits& limits = shared_.limits;
    if (error == http::error::header_limit)
      refuse(431, fmt::format("the header is longer than {} bytes", limits.header_bytes));
    if (error == http::error::body_limit)
      refuse(413, fmt::format("the body is longer than {} bytes", limits.body_bytes));
    if (error == http::error::end_of_stream || error == beast::error::timeout ||
        error.category() != make_error_code(http::error::bad_method).category())
      return false;  // a timeout has closed the socket
    refuse(400, "not an HTTP request: " + error.message());
  }

  void read_head(const Parser& parser, HttpRequest& request) const {
    const auto& message = parser.get();
    const auto text = [](beast::string_view view) { return std::string(view.data(), view.size()); };
    request.method = text(message.method_string());
    const std::string target = text(message.target());
    const size_t mark = target.find('?');
    request.path = target.substr(0, mark);
    if (mark != std::string::npos) request.query = target.substr(mark + 1);
    for (const auto& field : message) {
      std::string name = text(field.name_string());
      std::ranges::transform(name, name.begin(),
                             [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      request.headers.emplace_back(std::move(name), text(field.value()));
    }
    if (std::ssize(request.headers) > shared_.limits.header_fields)
      refuse(431, fmt::format("more than {} header fields", shared_.limits.header_fields));
    if (!target.starts_with('/')) refuse(400, "the request's target must begin with '/'");
    check_framing(request);
    if (const std::string_view id = request.header("x-request-id"); is_plain_id(id)) {
      request.id = id;
    }
  }

  // Whoever stands in front must see the body end where we do.
  void check_framing(const HttpRequest& request) const {
    const auto count = [&](std::string_view name) {
      return std::ranges::count(request.headers, name, &HttpHeaders::value_type::first);
    };
    const auto encodings = count("transfer-encoding");
    if (count("content-length") + encodings > 1)
      refuse(400, "more than one Content-Length or Transfer-Encoding");
    if (encodings > 0 && !beast::iequals(request.header("transfer-encoding"), "chunked"))
      refuse(400, "the only Transfer-Encoding that is known is 'chunked'");
  }

  asio::awaitable<bool> read_body(Parser& parser) {
    const HttpLimits& limits = shared_.limits;
    if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
      if (!co_await send_text("HTTP/1.1 100 Continue\r\n\r\n")) co_return false;
    }
    Counted bytes(shared_.pending_body);
    const Clock::time_point end = Clock::now() + seconds(limits.whole_body_seconds);
    size_t before = 0;
    while (!parser.is_done()) {
      const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(end - Clock::now());
      stream_.expires_after(std::min(seconds(limits.body_seconds), left));
      const auto [error, count] = co_await http::async_read_some(stream_, buffer_, parser, kResult);
      if (error && !check(error)) co_return false;
      const size_t size = parser.get().body().size();
      if (bytes.add(static_cast<int64_t>(size - before)) > limits.pending_body_bytes)
        refuse(503, "too many large requests at a time");
      before = size;
    }
    co_return true;
  }

  // The head of an answer.
  std::string begin(HttpAnswer& answer, const HttpRequest& request, Framing framing) const {
    for (auto& header : shared_.handler.headers(request)) answer.headers.push_back(header);
    shared_.handler.answered(request, answer.status);
    return head_of(answer, request, keep_alive_, framing);
  }

  asio::awaitable<bool> send_text(std::string text) {
    stream_.expires_after(seconds(shared_.limits.write_seconds));
    const auto [error, count] = co_await asio::async_write(stream_, asio::buffer(text), kResult);
    co_return !error;
  }

  // True: answered to the end.
  asio::awaitable<bool> answer(HttpRequest request) {
    Counted counted(shared_.exchanges);
    counted.add(1);
    auto exchange = std::make_shared<Exchange>(std::move(request), [weak = weak_from_this()] {
      if (auto self = weak.lock()) {
        asio::post(self->stream_.get_executor(), [self] { self->wake_.cancel(); });
      }
    });
    watch(exchange);
    asio::post(shared_.workers, [exchange, &handler = shared_.handler] {
      try {
        handler.handle(exchange);
      } catch (const std::exception& error) {
        exchange->answer(handler.error(500, error.what()));
      }
    });
    const bool sent = co_await send(*exchange);
    watching_.emit(asio::cancellation_type::all);
    if (!sent) exchange->set_gone();
    co_return sent;
  }

  // Takes pieces and sends them until the end, or until the client has gone.
  asio::awaitable<bool> send(Exchange& exchange) {
    bool chunked = false;
    while (true) {
      if (exchange.gone()) co_return false;
      Exchange::Output output = exchange.take(kMaxWrite);
      std::string text;
      if (output.head) {
        chunked = output.in_pieces && version_ >= 11;
        if (output.in_pieces && !chunked) keep_alive_ = false;
        text = begin(*output.head, exchange.request(),
                     chunked            ? Framing::kChunked
                     : output.in_pieces ? Framing::kClose
                                        : Framing::kLength);
        if (exchange.request().method != "HEAD") text += output.head->body;
      }
      append_piece(text, output.bytes, chunked);
      if (output.ended && chunked) text += "0\r\n\r\n";
      for (size_t at = 0; at < text.size(); at += kMaxWrite) {
        if (!co_await send_text(text.substr(at, kMaxWrite))) co_return false;
      }
      if (output.ended) co_return true;
      if (!text.empty()) continue;
      wake_.expires_after(seconds(shared_.limits.ping_seconds));
      const auto [woken] = co_await wake_.async_wait(kResult);
      std::string ping;
      if (!woken) append_piece(ping, exchange.ping(), chunked);
      if (!ping.empty() && !co_await send_text(std::move(ping))) co_return false;
    }
  }

  static void append_piece(std::string& out, const std::string& bytes, bool chunked) {
    if (bytes.empty()) return;
    out += chunked ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes) : bytes;
  }

  // Notices that the client closes its side while it waits for the answer. Bytes of a next request
  // hide that, until a write fails.
  void watch(std::shared_ptr<Exchange> exchange) {
    stream_.socket().async_wait(
        Tcp::socket::wait_read,
        asio::bind_cancellation_slot(
            watching_.slot(), [self = shared_from_this(), exchange](beast::error_code error) {
              if (error) return;
              char byte = 0;
              const ssize_t count =
                  recv(self->stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
              if (count > 0) return;
              if (count < 0 && (errno == EAGAIN || errno == EINTR)) return self->watch(exchange);
              exchange->set_gone();
              self->wake_.cancel();
            }));
  }

  // What the client still sends is read for a moment: a socket that is closed with bytes unread
  // may take the answer away from the client.
  asio::awaitable<void> linger() {
    beast::error_code ignored;
    stream_.socket().shutdown(Tcp::socket::shutdown_send, ignored);
    stream_.expires_after(std::chrono::seconds(2));
    for (size_t total = 0; total < size_t{64} << 20;) {
      buffer_.clear();
      const auto [error, count] =
          co_await stream_.async_read_some(buffer_.prepare(kMaxWrite), kResult);
      if (error) co_return;
      total += count;
    }
  }

  beast::tcp_stream stream_;
  asio::steady_timer wake_;
  Shared& shared_;
  Counted connection_{shared_.connections};
  beast::flat_buffer buffer_;
  asio::cancellation_signal watching_;
  unsigned version_ = 11;  // of HTTP, ten times
  bool keep_alive_ = true;
};

}  // namespace

struct HttpServer::Impl {
  Impl(const HttpLimits& limits, HttpHandler handler) {
    shared.limits = limits;
    shared.handler = std::move(handler);
  }

  void listen(const std::string& host, int64_t port) {
    beast::error_code error;
    const auto check = [&](const char* what) {
      if (error) throw_error("cannot {} {}:{}: {}", what, host, port, error.message());
    };
    Tcp::resolver resolver(io);
    const auto found = resolver.resolve(
        host, std::to_string(port), Tcp::resolver::passive | Tcp::resolver::numeric_service, error);
    check("find");
    const Tcp::endpoint place = found.begin()->endpoint();
    acceptor.open(place.protocol(), error);
    check("open");
    acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
    acceptor.bind(place, error);
    check("listen on");
    acceptor.listen(asio::socket_base::max_listen_connections, error);
    check("listen on");
    endpoint = acceptor.local_endpoint();
  }

  asio::awaitable<void> accept() {
    while (true) {
      auto [error, socket] = co_await acceptor.async_accept(asio::make_strand(io), kResult);
      if (error == asio::error::operation_aborted) co_return;
      if (error) {  // no descriptors left: others will close some
        asio::steady_timer pause(io, std::chrono::milliseconds(50));
        co_await pause.async_wait(kResult);
        continue;
      }
      beast::error_code ignored;
      socket.set_option(Tcp::no_delay(true), ignored);
      auto session = std::make_shared<Session>(std::move(socket), shared);
      asio::co_spawn(
          session->executor(), [session] { return session->run(); }, asio::detached);
    }
  }

  Shared shared;  // sessions, which go with `io`, refer to it
  asio::io_context io{2};
  Tcp::acceptor acceptor{io};
  Tcp::endpoint endpoint;
  std::vector<std::thread> threads;
};

HttpServer::HttpServer(const std::string& host, int64_t port, const HttpLimits& limits,
                       HttpHandler handler)
    : impl_(std::make_unique<Impl>(limits, std::move(handler))) {
  impl_->listen(host, port);
}

void HttpServer::serve() {
  HALO_CHECK(impl_->threads.empty(), "http: serve() was called before; it is called once");
  asio::co_spawn(impl_->io, impl_->accept(), asio::detached);
  for (int i = 0; i < 2; ++i) {
    impl_->threads.emplace_back([&io = impl_->io] { io.run(); });
  }
}

HttpServer::~HttpServer() {
  impl_->io.stop();
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->shared.workers.join();
}

int64_t HttpServer::port() const {
  return impl_->endpoint.port();
}

bool HttpServer::is_loopback() const {
  return impl_->endpoint.address().is_loopback();
}

int64_t HttpServer::connections() const {
  return impl_->shared.connections;
}

int64_t HttpServer::exchanges() const {
  return impl_->shared.exchanges;
}

}  // namespace halo
