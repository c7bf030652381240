// Keys of the store: "words/N/R", what rank R said in exchange N; "sign/R", its sign of life;
// "ended", "R CODE" of the first that ended; "heard/R", R knows that.
#include "halo/runtime/rank_words.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "c10/util/Exception.h"
#include "halo/base/check.h"
#include "halo/base/stop_request.h"
#include "halo/runtime/other_ranks.h"

namespace halo {
namespace {

// How long a rank may take to come: its libraries are loaded, perhaps by all of them from one disk.
double seconds_to_come(double time_limit) {
  return std::max(30.0, 2.5 * time_limit);
}

// For the others to hear of an end from a server that ends with it.
constexpr double kSecondsToHear = 3;

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string sign_key(int64_t rank) {
  return fmt::format("sign/{}", rank);
}

std::string heard_key(int64_t rank) {
  return fmt::format("heard/{}", rank);
}

struct Ended {
  int64_t rank = 0;
  int code = 0;
};

std::optional<Ended> read_ended(RankStore& store) {
  const std::optional<std::string> text = store.get_if_there("ended");
  if (!text) return std::nullopt;
  return Ended{std::stoll(*text), std::stoi(text->substr(text->find(' ') + 1))};
}

}  // namespace

RankWords::RankWords(RankStore store, const RankPlace& place, double time_limit)
    : place_(place),
      time_limit_(time_limit),
      store_(std::move(store)),
      signs_store_(store_.another()) {
  // Before it says anything, so that who has said something has come.
  from_store([&] { store_.set(sign_key(place_.rank), "0"); });
  at_stop_.emplace([this] { end(kStoppedCode); });
  signs_ = std::jthread([this](const std::stop_token& stop) { show_signs(stop); });
  find_neighbours();
}

RankWords::~RankWords() {
  at_stop_.reset();
}

// Processes of this machine, whose death can be seen.
void RankWords::find_neighbours() {
  const std::string host = host_name();
  const auto all = exchange(fmt::format("{} {}", getpid(), host), std::nullopt);
  std::vector<int> neighbours;
  for (int64_t r = 0; r < place_.size; ++r) {
    const size_t space = all[r].find(' ');
    const bool is_here = all[r].substr(space + 1) == host;
    neighbours.push_back(is_here && r != place_.rank ? std::stoi(all[r].substr(0, space)) : 0);
  }
  const std::lock_guard lock(mutex_);
  neighbours_ = std::move(neighbours);
}

std::vector<std::string> RankWords::exchange(const std::string& mine, std::optional<double> limit) {
  const int64_t number = exchanges_++;
  const auto key = [&](int64_t n, int64_t r) { return fmt::format("words/{}/{}", n, r); };
  std::vector<std::string> keys;
  for (int64_t r = 0; r < place_.size; ++r) keys.push_back(key(number, r));
  return from_store([&] {
    store_.set(key(number, place_.rank), mine);
    WaitClock clock;
    SignsOfLife signs(place_.size);
    while (!store_.wait(keys, SignsOfLife::period(time_limit_))) {
      check();
      look_for(keys, limit, clock.seconds(), signs);
    }
    std::vector<std::string> all = store_.get(keys);
    // All have set this one, so all have read the one before.
    if (number > 0) store_.remove(key(number - 1, place_.rank));
    return all;
  });
}

// Throws where a rank whose key is missing has taken too long, or lives no more.
void RankWords::look_for(const std::vector<std::string>& keys, std::optional<double> limit,
                         double waited, SignsOfLife& signs) {
  for (int64_t r = 0; r < place_.size; ++r) {
    if (store_.get_if_there(keys[r])) continue;
    if (limit) {
      if (waited <= *limit) return;
      lose_rank(
          fmt::format("rank {} did not answer for {:g} seconds (run.rank_seconds)", r, *limit));
    }
    const std::optional<std::string> sign = store_.get_if_there(sign_key(r));
    if (sign) {
      if (signs.silence(r, std::stoull(*sign), waited) > time_limit_) {
        lose_silent_rank(r, time_limit_);
      }
    } else if (const double limit_to_come = seconds_to_come(time_limit_); waited > limit_to_come) {
      lose_rank(fmt::format("rank {} has not come for {:g} seconds", r, limit_to_come));
    }
  }
}

// The server's end is that of the rank that serves.
template <class F>
auto RankWords::from_store(F call) -> decltype(call()) {
  try {
    return call();
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    lose_rank("the ranks' store is gone: " + what.substr(0, what.find('\n')));
  }
}

void RankWords::end(int exit_code) {
  try {
    if (!read_ended(store_)) store_.set("ended", fmt::format("{} {}", place_.rank, exit_code));
    store_.set(heard_key(place_.rank), "");
    if (place_.rank != 0 || place_.is_served) return;
    std::vector<std::string> heard;
    for (int64_t r = 0; r < place_.size; ++r) heard.push_back(heard_key(r));
    store_.wait(heard, kSecondsToHear);
  } catch (const std::exception&) {  // the server may be gone, with whom it was for
  }
}

void RankWords::give_up(const std::string& why) {
  const std::lock_guard lock(mutex_);
  given_up_ = why;
}

void RankWords::check() {
  const auto check_ended = [&] {
    if (const auto ended = from_store([&] { return read_ended(store_); })) {
      end_with(ended->rank, ended->code);
    }
  };
  check_ended();
  std::string why = dead_neighbour();
  {
    const std::lock_guard lock(mutex_);
    if (!given_up_.empty()) why = given_up_;
  }
  if (why.empty()) return;
  check_ended();  // it may have said so before it died
  lose_rank(why);
}

std::string RankWords::trouble() {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

std::string RankWords::dead_neighbour() const {
  for (size_t r = 0; r < neighbours_.size(); ++r) {
    if (neighbours_[r] != 0 && !lives(neighbours_[r])) {
      return fmt::format("rank {} (process {}) has died", r, neighbours_[r]);
    }
  }
  return "";
}

void RankWords::show_signs(const std::stop_token& stop) {
  const std::chrono::duration<double> period(SignsOfLife::period(time_limit_));
  std::unique_lock lock(mutex_);
  for (uint64_t number = 1; !stop.stop_requested(); ++number) {
    lock.unlock();
    std::string seen;
    try {
      seen = look_around(number);
    } catch (const std::exception&) {
      seen = "the ranks' store is gone";
    }
    lock.lock();
    trouble_ = seen.empty() ? dead_neighbour() : seen;
    change_.wait_for(lock, stop, period, [] { return false; });
  }
}

// A sign of life; returns what the store says of the others.
std::string RankWords::look_around(uint64_t number) {
  signs_store_.set(sign_key(place_.rank), fmt::format("{}", number));
  const std::optional<Ended> ended = read_ended(signs_store_);
  if (!ended || ended->rank == place_.rank) return "";
  signs_store_.set(heard_key(place_.rank), "");
  if (ended->code == kStoppedCode) request_stop();
  return fmt::format("rank {} has ended", ended->rank);
}

}  // namespace halo
