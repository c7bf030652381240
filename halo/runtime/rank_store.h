// Words that ranks leave for one another with a server: LibTorch's TCPStore, which is torchrun's
// too.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace halo {

class RankStore {
 public:
  // Serves at a free port of this machine.
  RankStore();
  // The one at address:port. The first rank `serves` it where nobody else does. An Error where that
  // cannot be within five minutes. Keys begin with `prefix`.
  RankStore(const std::string& address, int64_t port, bool serves, std::string prefix);
  ~RankStore();
  RankStore(RankStore&&) noexcept;
  int64_t port() const;

  void set(const std::string& key, const std::string& value);
  // Whether all of them are there within `seconds`.
  bool wait(const std::vector<std::string>& keys, double seconds);
  // Of keys that are there.
  std::vector<std::string> get(const std::vector<std::string>& keys);
  std::optional<std::string> get_if_there(const std::string& key);
  void remove(const std::string& key);

  // The same server, for another thread.
  RankStore another() const;

 private:
  struct Client;
  explicit RankStore(std::unique_ptr<Client> client);
  std::string full(const std::string& key) const;
  std::vector<std::string> full(const std::vector<std::string>& keys) const;

  std::unique_ptr<Client> client_;
};

}  // namespace halo
