#include "halo/server/exchange.h"

namespace halo {
namespace {

// A client that lets this much of a stream pile up does not read it.
constexpr size_t kMaxPending = size_t{16} << 20;

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

void Exchange::answer(HttpAnswer answer) {
  {
    const std::lock_guard lock(mutex_);
    if (begun_) return;
    begun_ = ended_ = true;
    head_ = std::move(answer);
  }
  wake_();
}

void Exchange::begin(HttpAnswer head, std::string ping) {
  {
    const std::lock_guard lock(mutex_);
    if (begun_) return;
    begun_ = in_pieces_ = true;
    head_ = std::move(head);
    ping_ = std::move(ping);
  }
  wake_();
}

void Exchange::write(std::string_view piece) {
  bool is_stuck = false;
  {
    const std::lock_guard lock(mutex_);
    if (!in_pieces_ || ended_ || gone_) return;
    bytes_ += piece;
    is_stuck = bytes_.size() - taken_ > kMaxPending;
  }
  if (is_stuck) set_gone();
  wake_();
}

void Exchange::end() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  wake_();
}

bool Exchange::begun() const {
  const std::lock_guard lock(mutex_);
  return begun_;
}

bool Exchange::gone() const {
  const std::lock_guard lock(mutex_);
  return gone_;
}

void Exchange::when_gone(std::function<void()> action) {
  {
    const std::lock_guard lock(mutex_);
    if (!gone_) {
      when_gone_ = std::move(action);
      return;
    }
  }
  action();
}

void Exchange::set_gone() {
  std::function<void()> action;
  {
    const std::lock_guard lock(mutex_);
    if (gone_) return;
    gone_ = true;
    if (!ended_) action = std::move(when_gone_);
    when_gone_ = nullptr;
  }
  if (action) action();
}

std::string Exchange::ping() const {
  const std::lock_guard lock(mutex_);
  return in_pieces_ && !ended_ ? ping_ : "";
}

Exchange::Output Exchange::take(size_t max_bytes) {
  const std::lock_guard lock(mutex_);
  Output out;
  out.head = std::exchange(head_, std::nullopt);
  out.in_pieces = in_pieces_;
  out.bytes = bytes_.substr(taken_, max_bytes);
  taken_ += out.bytes.size();
  if (taken_ >= bytes_.size() / 2) {
    bytes_.erase(0, taken_);
    taken_ = 0;
  }
  out.ended = ended_ && bytes_.empty();
  if (out.ended) when_gone_ = nullptr;
  return out;
}

}  // namespace halo
