// Counters and histograms of a server, as Prometheus reads them. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace halo {

// How often values were at most each of `bounds`, which rise.
class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds)
      : bounds_(bounds.begin(), bounds.end()), counts_(bounds.size() + 1) {}
  void observe(double value);
  // Lines in Prometheus' text form; `labels` as in "{model_name=\"x\"}", without braces.
  void print(std::string& out, const std::string& name, const std::string& labels) const;

 private:
  std::vector<double> bounds_;
  std::vector<uint64_t> counts_;  // the last: above all bounds
  double sum_ = 0;
};

class ServerMetrics {
 public:
  explicit ServerMetrics(const std::string& model);

  // "halo_" + name: `help` is said once, `labels` may tell parts of one figure apart.
  void add(const std::string& name, const std::string& labels = "", double value = 1);
  void observe(const std::string& name, double value);

  struct Gauge {
    std::string name, help;
    double value;
    bool is_counter = false;
  };
  // All of it, with figures that somebody else keeps.
  std::string text(const std::vector<Gauge>& gauges) const;

 private:
  struct Counter {
    std::string help;
    std::map<std::string, double> values;  // by labels
  };
  struct Distribution {
    std::string help;
    Histogram histogram;
  };
  const std::string model_label_;
  mutable std::mutex mutex_;
  std::map<std::string, Counter> counters_;
  std::map<std::string, Distribution> distributions_;
};

}  // namespace halo
