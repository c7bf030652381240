// A running `halo serve` for tests.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "halo/base/files.h"
#include "tests/http_client.h"
#include "tests/system/world.h"

namespace halo::system_test {

using test::HttpClient;
using test::HttpReply;

inline constexpr const char* kTemplate =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

// The world's teacher with a chat template.
inline fs::path chat_model() {
  static const fs::path model = [] {
    fs::path to = World::get().folder("served");
    fs::copy(World::get().teacher(), to, fs::copy_options::recursive);
    write_file(to / "chat_template.jinja", kTemplate);
    return to;
  }();
  return model;
}

// A running server on a port of its own.
class Server {
 public:
  explicit Server(Words options = {}, Words environment = {}) {
    port_ = free_port();
    Words arguments = {"serve",     chat_model().string(),
                       "--port",    std::to_string(port_),
                       "--threads", "1",
                       "--memory",  "0.05"};
    if (std::ranges::count(options, "--max-context") == 0)
      arguments.insert(arguments.end(), {"--max-context", "2000"});
    arguments.insert(arguments.end(), options.begin(), options.end());
    process_ =
        std::make_unique<Running>(Process{.arguments = arguments, .environment = environment});
    for (int i = 0; i < 3000 && process_->alive(); ++i) {
      try {
        if (HttpClient(port_).get("/health/live").status == 200) return;
      } catch (const Error&) {
        usleep(10'000);
      }
    }
    ADD_FAILURE() << "the server did not start: " << process_->wait().err;
  }

  int64_t port() const { return port_; }
  Running& process() { return *process_; }
  json::value get(const std::string& path) const {
    const HttpReply reply = HttpClient(port_).get(path);
    EXPECT_EQ(reply.status, 200) << path << reply.body;
    return parse_json(reply.body, path);
  }
  HttpReply post(const std::string& path, const std::string& body,
                 const std::string& headers = "") const {
    return HttpClient(port_).post(path, body, headers);
  }
  json::value ask(const std::string& path, const std::string& body) const {
    const HttpReply reply = post(path, body);
    EXPECT_EQ(reply.status, 200) << path << reply.body;
    return parse_json(reply.body, path);
  }
  json::value refused(const std::string& path, const std::string& body, int status) const {
    const HttpReply reply = post(path, body);
    EXPECT_EQ(reply.status, status) << path << body << reply.body;
    return parse_json(reply.body, path).at("error");
  }
  double metric(const std::string& name) const {
    const std::string text = HttpClient(port_).get("/metrics").body;
    const size_t at = text.find("\nhalo_" + name + "{");
    if (at == std::string::npos) return -1;
    return std::stod(text.substr(text.find("} ", at) + 2));
  }
  // Until nothing runs.
  void wait_until_idle() const {
    for (int i = 0; i < 1000; ++i) {
      if (metric("num_requests_running") == 0 && metric("num_requests_waiting") == 0) return;
      usleep(20'000);
    }
    ADD_FAILURE() << "something runs for ever";
  }

 private:
  static int64_t free_port() {
    const int s = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bind(s, reinterpret_cast<sockaddr*>(&address), size);
    getsockname(s, reinterpret_cast<sockaddr*>(&address), &size);
    ::close(s);
    return ntohs(address.sin_port);
  }

  int64_t port_;
  std::unique_ptr<Running> process_;
};

// One for all tests of a program.
inline Server& server() {
  static Server one;
  return one;
}

inline std::vector<json::value> events_of(const std::string& stream) {
  std::vector<json::value> out;
  for (size_t at = 0; at < stream.size();) {
    const size_t end = stream.find("\n\n", at);
    const std::string event = stream.substr(at, end - at);
    const size_t data = event.find("data: ");
    if (data != std::string::npos && event.substr(data + 6) != "[DONE]")
      out.push_back(parse_json(event.substr(data + 6), "event"));
    at = end + 2;
  }
  return out;
}

}  // namespace halo::system_test
