// A client of HTTP/1.1 for tests: sends what it is told, byte for byte, and reads what comes.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>
#include <optional>
#include <string>

#include "halo/base/check.h"

namespace halo::test {

struct HttpReply {
  int status = 0;  // 0: the connection ended before an answer
  std::map<std::string, std::string> headers;
  std::string body;  // chunks joined
};

class HttpClient {
 public:
  explicit HttpClient(int64_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    while (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      if (errno == EISCONN) break;
      // A signal (libFuzzer's clock) may come between; the connection is made all the same.
      if (errno != EINTR && errno != EALREADY) {
        throw_error("cannot connect to port {}: {}", port, std::strerror(errno));
      }
    }
  }
  ~HttpClient() { close(); }
  HttpClient(const HttpClient&) = delete;

  void close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }

  // False: the other side has gone.
  bool send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // Nothing more will be sent.
  void end_sending() const { shutdown(socket_, SHUT_WR); }

  // Reads until `text` has come; false where the connection ends, or `seconds` pass, before.
  bool read_until(std::string_view text, double seconds = 20) {
    while (bytes_.find(text) == std::string::npos) {
      if (!read_more(seconds)) return false;
    }
    return true;
  }

  HttpReply read(double seconds = 20) {
    HttpReply reply;
    if (!read_until("\r\n\r\n", seconds)) return reply;
    const size_t end = bytes_.find("\r\n\r\n");
    const std::string head = bytes_.substr(0, end + 2);
    bytes_.erase(0, end + 4);
    reply.status = std::stoi(head.substr(9, 3));
    for (size_t at = head.find("\r\n") + 2; at < head.size();) {
      const size_t line = head.find("\r\n", at), colon = head.find(": ", at);
      reply.headers[head.substr(at, colon - at)] = head.substr(colon + 2, line - colon - 2);
      at = line + 2;
    }
    if (reply.status == 100) return read(seconds);
    if (reply.headers.contains("transfer-encoding")) {
      while (const std::optional<std::string> chunk = read_chunk(seconds)) reply.body += *chunk;
    } else if (reply.headers.contains("content-length")) {
      const auto length = std::stoul(reply.headers["content-length"]);
      while (bytes_.size() < length && read_more(seconds)) continue;
      reply.body = bytes_.substr(0, length);
      bytes_.erase(0, length);
    } else {
      while (read_more(seconds)) continue;
      reply.body = std::move(bytes_);
    }
    return reply;
  }

  HttpReply get(const std::string& target, const std::string& headers = "") {
    send(fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", target, headers));
    return read();
  }
  HttpReply post(const std::string& target, const std::string& body,
                 const std::string& headers = "") {
    send(post_text(target, body, headers));
    return read();
  }
  static std::string post_text(const std::string& target, const std::string& body,
                               const std::string& headers = "") {
    return fmt::format(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: {}\r\n{}\r\n{}",
        target, body.size(), headers, body);
  }

  // The other side has closed, within `seconds`.
  bool is_closed(double seconds = 20) {
    while (read_more(seconds)) continue;
    return ended_;
  }

 private:
  bool read_more(double seconds) {
    pollfd ready{socket_, POLLIN, 0};
    if (poll(&ready, 1, static_cast<int>(seconds * 1e3)) <= 0) return false;
    char buffer[16 << 10];
    const ssize_t count = recv(socket_, buffer, sizeof buffer, 0);
    ended_ = count <= 0;
    if (ended_) return false;
    bytes_.append(buffer, static_cast<size_t>(count));
    return true;
  }

  // Nothing: the last one, or the connection ended.
  std::optional<std::string> read_chunk(double seconds) {
    size_t line = 0;
    while ((line = bytes_.find("\r\n")) == std::string::npos) {
      if (!read_more(seconds)) return std::nullopt;
    }
    size_t size = 0;
    std::from_chars(bytes_.data(), bytes_.data() + line, size, 16);
    while (bytes_.size() < line + 2 + size + 2 && read_more(seconds)) continue;
    std::string chunk = bytes_.substr(line + 2, size);
    bytes_.erase(0, line + 2 + size + 2);
    if (size == 0) return std::nullopt;
    return chunk;
  }

  int socket_;
  bool ended_ = false;
  std::string bytes_;
};

}  // namespace halo::test
