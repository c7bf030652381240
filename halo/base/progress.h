// What a long command tells the person in front of it: one line that rewrites itself on a terminal,
// plain lines every two seconds elsewhere, fewer when it takes long. Everything goes to stderr.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace halo {

// A phase of a command. As long as it lives something is said of it, by a thread of its own: also
// between two updates, however far apart they are. One that takes less than two seconds says
// nothing but what finish() does. A phase that begins inside another one, on the same thread, is
// said behind it: "select: 3/28  layers 1 5 | held-out text: 2/8".
class Progress {
 public:
  // "align", 240 steps. A `total` of 0: nothing is counted.
  explicit Progress(std::string title, int64_t total = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  // `text` is what follows the count: "loss 0.231  1812 tok/s". ETA is added.
  void update(int64_t done, const std::string& text = "");
  void finish(const std::string& text);

 private:
  using Clock = std::chrono::steady_clock;
  void speak();
  void print(const std::string& line);
  std::string line() const;

  const std::string title_;
  const int64_t total_;
  const Clock::time_point begin_ = Clock::now();
  Progress* const outer_;
  Progress& root_;  // the outermost; its thread speaks for all, its mutex guards what follows
  Progress* inner_ = nullptr;
  bool finished_ = false;
  int64_t done_ = 0, first_done_ = -1;
  Clock::time_point first_ = begin_;  // when first_done_ was
  std::string text_;

  // Of the outermost alone.
  std::mutex mutex_;
  std::condition_variable change_;
  bool terminal_ = false, ended_ = false, line_open_ = false;
  std::thread speaker_;
};

// A line on stderr, of its own.
void say(const std::string& line);
// One about something that went on although it was not as one would expect it.
void warn(const std::string& what);

}  // namespace halo
