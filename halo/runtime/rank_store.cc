#include "halo/runtime/rank_store.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "halo/base/check.h"
#include "torch/csrc/distributed/c10d/TCPStore.hpp"

namespace halo {
namespace {

constexpr std::chrono::seconds kPatience{300};

c10d::TCPStoreOptions options(int64_t port, bool serves) {
  c10d::TCPStoreOptions o;
  o.port = static_cast<uint16_t>(port);
  o.isServer = serves;
  o.waitWorkers = false;
  o.timeout = kPatience;
  return o;
}

}  // namespace

struct RankStore::Client {
  c10::intrusive_ptr<c10d::Store> store;
  int64_t port;
  std::string prefix;
};

RankStore::RankStore(std::unique_ptr<Client> client) : client_(std::move(client)) {}

RankStore::RankStore() : RankStore("127.0.0.1", 0, true, "") {}

RankStore::RankStore(const std::string& address, int64_t port, bool serves, std::string prefix) {
  try {
    const auto store = c10::make_intrusive<c10d::TCPStore>(address, options(port, serves));
    client_ = std::make_unique<Client>(
        Client{store, static_cast<int64_t>(store->getPort()), std::move(prefix)});
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    throw_error("ranks: cannot {} {}:{} (MASTER_ADDR, MASTER_PORT): {}",
                serves ? "serve at" : "reach the first rank at", address, port,
                what.substr(0, what.find('\n')));
  }
}

RankStore::~RankStore() = default;
RankStore::RankStore(RankStore&&) noexcept = default;

int64_t RankStore::port() const {
  return client_->port;
}

std::string RankStore::full(const std::string& key) const {
  return client_->prefix + key;
}

std::vector<std::string> RankStore::full(const std::vector<std::string>& keys) const {
  std::vector<std::string> out;
  for (const std::string& key : keys) out.push_back(full(key));
  return out;
}

void RankStore::set(const std::string& key, const std::string& value) {
  client_->store->set(full(key), std::vector<uint8_t>(value.begin(), value.end()));
}

// The store's own wait says on stderr that it waited.
bool RankStore::wait(const std::vector<std::string>& keys, double seconds) {
  const std::vector<std::string> all = full(keys);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (std::chrono::microseconds pause{100};;
       pause = std::min<std::chrono::microseconds>(2 * pause, std::chrono::milliseconds(20))) {
    if (client_->store->check(all)) return true;
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(pause);
  }
}

std::vector<std::string> RankStore::get(const std::vector<std::string>& keys) {
  std::vector<std::string> out;
  for (const std::vector<uint8_t>& value : client_->store->multiGet(full(keys))) {
    out.emplace_back(value.begin(), value.end());
  }
  return out;
}

std::optional<std::string> RankStore::get_if_there(const std::string& key) {
  if (!client_->store->check({full(key)})) return std::nullopt;
  return get({key}).front();
}

void RankStore::remove(const std::string& key) {
  client_->store->deleteKey(full(key));
}

RankStore RankStore::another() const {
  return RankStore(
      std::make_unique<Client>(Client{client_->store->clone(), client_->port, client_->prefix}));
}

}  // namespace halo
