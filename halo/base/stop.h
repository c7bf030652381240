// How a command ends if a signal asks for it. SIGINT and SIGTERM end the process at once, wherever
// it is: what it writes under temporary names goes, all else stays as a kill at that moment would
// leave it, and every file is made to survive that. Code that has something to save first says so.
#pragma once

#include <functional>
#include <list>
#include <string>

namespace halo {

// From now on a first SIGINT or SIGTERM lets a thread of its own run what AtStop holds, newest
// first, then `end` with the signal's name; `end` is to end the process. A second signal kills the
// process.
void install_stop_handler(std::function<void(const std::string& signal)> end);
bool stop_requested();

// While one lives, a signal ends nothing. It says on stderr that `what` ("align: saves its state")
// comes first; the code around it asks stop_requested(), saves and throws Stopped. If it goes on
// to its end instead, the process ends there.
class StopLater {
 public:
  explicit StopLater(std::string what);
  ~StopLater();
  StopLater(const StopLater&) = delete;

 private:
  std::list<std::string>::iterator place_;
};

// While one lives, a signal that ends the process calls `action` first, on another thread; this
// object's destructor then never returns. `action` must not throw.
class AtStop {
 public:
  explicit AtStop(std::function<void()> action);
  ~AtStop();
  AtStop(const AtStop&) = delete;

 private:
  std::list<std::function<void()>>::iterator place_;
};

}  // namespace halo
