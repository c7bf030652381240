#include "halo/engine/stop_text.h"

#include <algorithm>
#include <utility>

#include "halo/base/check.h"

namespace halo {

StopText::StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) throw_error("a stop string is empty; expected text");
  }
}

std::string StopText::push(std::string_view text) {
  if (stopped_) return "";
  held_ += text;
  size_t begin = 0, end = std::string::npos, kept = 0;
  for (const std::string& stop : stops_) {
    // The one that is complete first, whatever pieces the text comes in.
    const size_t found = held_.find(stop);
    if (found != std::string::npos &&
        std::pair(found + stop.size(), found) < std::pair(end, begin)) {
      begin = found;
      end = found + stop.size();
      stopped_by_ = stop;
    }
    size_t begun = std::min(held_.size(), stop.size() - 1);
    while (begun > 0 && !held_.ends_with(std::string_view(stop).substr(0, begun))) --begun;
    kept = std::max(kept, begun);
  }
  stopped_ = end != std::string::npos;
  std::string certain = held_.substr(0, stopped_ ? begin : held_.size() - kept);
  held_.erase(0, stopped_ ? held_.size() : certain.size());
  return certain;
}

std::string StopText::finish() {
  return std::exchange(held_, "");
}

}  // namespace halo
