// Where a text that grows piece by piece ends: before that of some strings which is complete first.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace halo {

class StopText {
 public:
  // An empty one among `stops` is an Error.
  explicit StopText(std::vector<std::string> stops);

  // The text that became certain: all before a stop string, and nothing that may be the start of
  // one. None after the end.
  std::string push(std::string_view text);
  std::string finish();  // what was held back, where no stop string came; once, last
  bool stopped() const { return stopped_; }
  const std::string& stopped_by() const { return stopped_by_; }  // empty: by none

 private:
  std::vector<std::string> stops_;
  std::string held_, stopped_by_;
  bool stopped_ = false;
};

}  // namespace halo
