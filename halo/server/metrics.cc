#include "halo/server/metrics.h"

#include <fmt/format.h>

#include <algorithm>

#include "halo/base/check.h"

namespace halo {
namespace {

// The prompt of a million tokens takes minutes.
constexpr double kSeconds[] = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                               2.5,   5,     10,   20,    40,   80,  160,  320, 600};
constexpr double kShortSeconds[] = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04,
                                    0.08,   0.16,  0.32,  0.64,  1.28, 2.5,  5};
constexpr double kTokens[] = {1,    2,    5,     10,    20,    50,     100,    200,    500, 1000,
                              2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1e6};

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else {
      if (c == '\\' || c == '"') out += '\\';
      out += c;
    }
  }
  return out;
}

void print_head(std::string& out, const std::string& name, const std::string& help,
                std::string_view type) {
  out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

}  // namespace

void Histogram::observe(double value) {
  ++counts_[static_cast<size_t>(std::ranges::lower_bound(bounds_, value) - bounds_.begin())];
  sum_ += value;
}

void Histogram::print(std::string& out, const std::string& name, const std::string& labels) const {
  uint64_t total = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    total += counts_[i];
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    out += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bound, total);
  }
  out +=
      fmt::format("{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels, sum_, name, labels, total);
}

ServerMetrics::ServerMetrics(const std::string& model)
    : model_label_(fmt::format("model_name=\"{}\"", escape(model))) {
  counters_ = {
      {"requests_total", {"Answers over HTTP, by route and status", {}}},
      {"request_success_total", {"Finished choices, by reason", {}}},
      {"request_errors_total", {"Choices that ended in an error of the model", {}}},
      {"cancelled_requests_total", {"Choices whose client went away", {}}},
      {"prompt_tokens_total", {"Tokens of all prompts", {{"", 0}}}},
      {"prompt_tokens_cached_total", {"Tokens of prompts that were not computed again", {{"", 0}}}},
      {"generation_tokens_total", {"Tokens of all answers", {{"", 0}}}},
      {"rejected_requests_total", {"Requests refused because the queue was full", {{"", 0}}}},
  };
  const auto seconds = [&](const std::string& name, const std::string& help) {
    distributions_.insert({name, {help, Histogram(kSeconds)}});
  };
  seconds("time_to_first_token_seconds", "From a request's arrival to its first token");
  seconds("e2e_request_latency_seconds", "From a request's arrival to its end");
  seconds("request_queue_time_seconds", "From a request's arrival to its prompt's first chunk");
  seconds("request_prefill_time_seconds", "Reading of the prompt");
  seconds("request_decode_time_seconds", "From the first token to the end");
  distributions_.insert(
      {"inter_token_latency_seconds", {"Between two tokens", Histogram(kShortSeconds)}});
  distributions_.insert({"request_prompt_tokens", {"Tokens of a prompt", Histogram(kTokens)}});
  distributions_.insert({"request_generation_tokens", {"Tokens of an answer", Histogram(kTokens)}});
}

void ServerMetrics::add(const std::string& name, const std::string& labels, double value) {
  const std::lock_guard lock(mutex_);
  counters_.at(name).values[labels] += value;
}

void ServerMetrics::observe(const std::string& name, double value) {
  const std::lock_guard lock(mutex_);
  distributions_.at(name).histogram.observe(value);
}

std::string ServerMetrics::text(const std::vector<Gauge>& gauges) const {
  const std::lock_guard lock(mutex_);
  std::string out;
  for (const auto& [name, counter] : counters_) {
    const std::string whole = "halo_" + name;
    print_head(out, whole, counter.help, "counter");
    for (const auto& [labels, value] : counter.values) {
      out += fmt::format("{}{{{}{}{}}} {}\n", whole, model_label_, labels.empty() ? "" : ",",
                         labels, value);
    }
  }
  for (const auto& [name, distribution] : distributions_) {
    const std::string whole = "halo_" + name;
    print_head(out, whole, distribution.help, "histogram");
    distribution.histogram.print(out, whole, model_label_);
  }
  for (const Gauge& gauge : gauges) {
    const std::string whole = "halo_" + gauge.name;
    print_head(out, whole, gauge.help, gauge.is_counter ? "counter" : "gauge");
    out += fmt::format("{}{{{}}} {}\n", whole, model_label_, gauge.value);
  }
  return out;
}

}  // namespace halo
