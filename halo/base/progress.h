// What a long command tells the person in front of it: one line that rewrites itself on a terminal,
// plain lines at most every few seconds elsewhere. Everything goes to stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace halo {

class Progress {
 public:
  // "align (stage 2 of 6)", 240 steps
  Progress(std::string title, int64_t total);
  ~Progress();
  // `text` is what follows the count: "loss 0.231  1812 tok/s". ETA is added.
  void update(int64_t done, const std::string& text);
  void finish(const std::string& text);

 private:
  void print(const std::string& line);

  std::string title_;
  int64_t total_, first_done_ = -1;
  bool terminal_, line_open_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

// A line on stderr about something that went on although it was not as one would expect it.
void warn(const std::string& what);

// SIGTERM and SIGINT ask a run to save and leave; a second one ends the process at once.
void install_stop_handler();
bool stop_requested();

}  // namespace halo
