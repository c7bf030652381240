// One line on stderr.
#include "halo/base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "halo/base/silence.h"

namespace halo {
namespace {

using std::chrono::duration;
using namespace std::chrono_literals;

std::string format_seconds(double seconds) {
  const int64_t s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
}

// The innermost phase of each thread.
thread_local Progress* innermost = nullptr;
thread_local bool is_silent = false;

}  // namespace

Progress::Progress(std::string title, int64_t total)
    : title_(std::move(title)),
      total_(total),
      outer_(std::exchange(innermost, this)),
      root_(outer_ ? outer_->root_ : *this) {
  if (outer_) {
    const std::lock_guard lock(root_.mutex_);
    outer_->inner_ = this;
    return;
  }
  if (is_silent) return;
  terminal_ = isatty(STDERR_FILENO) != 0;
  speaker_ = std::thread([this] { speak(); });
}

Progress::~Progress() {
  innermost = outer_;
  {
    const std::lock_guard lock(root_.mutex_);
    if (outer_) {
      outer_->inner_ = nullptr;
      return;
    }
    ended_ = true;
  }
  if (!speaker_.joinable()) return;
  change_.notify_one();
  speaker_.join();
  if (line_open_) std::fputc('\n', stderr);
}

void Progress::speak() {
  std::unique_lock lock(mutex_);
  while (true) {
    // In an hour of a log fewer lines are enough than in its first minute.
    const Clock::duration wait =
        terminal_ ? 200ms : std::clamp<Clock::duration>((Clock::now() - begin_) / 50, 2s, 60s);
    if (change_.wait_for(lock, wait, [this] { return ended_; })) return;
    if (Clock::now() - begin_ < 1s || finished_) continue;
    std::string all = line();
    for (const Progress* phase = inner_; phase && !phase->finished_; phase = phase->inner_) {
      all += " | " + phase->line();
    }
    print(all);
  }
}

std::string Progress::line() const {
  const double seconds = duration<double>(Clock::now() - begin_).count();
  if (total_ == 0) {
    return fmt::format("{}: {}{}{}", title_, text_, text_.empty() ? "" : "  ",
                       format_seconds(seconds));
  }
  std::string eta;
  if (first_done_ >= 0 && done_ > first_done_ && done_ < total_) {
    const double pace = duration<double>(Clock::now() - first_).count() / (done_ - first_done_);
    eta = "  ETA " + format_seconds(pace * (total_ - done_));
  }
  return fmt::format("{}: {}/{}{}{}{}", title_, done_, total_, text_.empty() ? "" : "  ", text_,
                     eta);
}

// Of the outermost phase.
void Progress::print(const std::string& line) {
  // \x1b[K clears what a longer line left behind.
  fmt::print(stderr, "{}{}{}", terminal_ ? "\r\x1b[K" : "", line, terminal_ ? "" : "\n");
  std::fflush(stderr);
  line_open_ = terminal_;
}

void Progress::update(int64_t done, const std::string& text) {
  const std::lock_guard lock(root_.mutex_);
  if (first_done_ < 0) {
    // A resumed run starts in the middle: its pace counts from here.
    first_done_ = done;
    first_ = Clock::now();
  }
  done_ = done;
  text_ = text;
}

void Progress::finish(const std::string& text) {
  const std::lock_guard lock(root_.mutex_);
  finished_ = true;
  if (is_silent) return;
  const double seconds = duration<double>(Clock::now() - begin_).count();
  root_.print(fmt::format("{}: {}  ({})", title_, text, format_seconds(seconds)));
  if (root_.line_open_) std::fputc('\n', stderr);
  root_.line_open_ = false;
}

Silence::Silence() {
  is_silent = true;
}

Silence::~Silence() {
  is_silent = false;
}

void say(const std::string& line) {
  if (is_silent) return;
  fmt::print(stderr, "{}\n", line);
}

void warn(const std::string& what) {
  say("warning: " + what);
}

}  // namespace halo
