// What comparing one golden folder gave: every figure's error against its bound, the worst of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "halo/formats/safetensors.h"

namespace halo::golden {

inline constexpr double kTensorBound = 1e-4;  // of a tensor's RMS

class Findings {
 public:
  // The largest absolute difference, at most kTensorBound of the RMS of `want`.
  void tensor(const std::string& what, const at::Tensor& got, const at::Tensor& want);
  // Every element within `bound` of the wanted one, or within `bound` x the wanted one.
  void absolute(const std::string& what, const at::Tensor& got, const at::Tensor& want,
                double bound);
  void relative(const std::string& what, const at::Tensor& got, const at::Tensor& want,
                double bound);
  void relative(const std::string& what, double got, double want, double bound);
  void equal(const std::string& what, bool is_equal);
  // An error that is no number keeps nothing within bounds.
  void at_most(const std::string& what, double error, double bound);

  void not_compared(const std::string& name) { not_compared_.push_back(name); }
  void not_built(const std::string& why) { not_built_ = why; }
  void failed(const std::string& why) { failure_ = why; }

  bool passed() const;
  bool was_built() const { return not_built_.empty(); }
  // "ok    hypenet-small: worst 1.3e-06 of 1e-04 (logits, fast), 10 figures"
  std::string line(const std::string& name) const;

 private:
  struct Figure {
    std::string what;
    double error = 0, bound = 0;
    double part() const;  // of the bound; infinite where nothing is allowed
  };
  int64_t count_ = 0;
  Figure worst_;
  std::vector<std::string> not_compared_;
  std::string not_built_, failure_;
};

// A file of expected tensors that remembers which of them were asked for.
class Expected {
 public:
  explicit Expected(const std::filesystem::path& path) : file_(path) {}

  bool contains(const std::string& name) const { return file_.find(name) != nullptr; }
  at::Tensor get(const std::string& name) const;                  // floating types widened to fp32
  std::vector<std::string> names(std::string_view prefix) const;  // those that begin so
  // Notes what nobody asked for.
  void note_rest(Findings& findings) const;

 private:
  SafetensorsFile file_;
  mutable std::set<std::string> used_;
};

// `text` less the first `part` in it.
std::string without(std::string text, std::string_view part);

}  // namespace halo::golden
