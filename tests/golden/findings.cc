#include "tests/golden/findings.h"

#include <cmath>
#include <limits>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/model/parameters.h"

namespace halo::golden {
namespace {

at::Tensor difference(const std::string& what, const at::Tensor& got, const at::Tensor& want) {
  if (got.sizes() != want.sizes()) {
    throw_error("{} has shape [{}], expected [{}]", what, fmt::join(got.sizes(), ", "),
                fmt::join(want.sizes(), ", "));
  }
  return (got.detach().to(at::kCPU, at::kDouble) - want.to(at::kDouble)).abs();
}

double largest(const at::Tensor& x) {
  return x.numel() == 0 ? 0 : x.max().item<double>();
}

}  // namespace

double Findings::Figure::part() const {
  if (error == 0) return 0;
  const double part = error / bound;
  return std::isnan(part) ? std::numeric_limits<double>::infinity() : part;
}

void Findings::at_most(const std::string& what, double error, double bound) {
  const Figure figure{what, error, bound};
  if (count_++ == 0 || figure.part() > worst_.part()) worst_ = figure;
}

void Findings::tensor(const std::string& what, const at::Tensor& got, const at::Tensor& want) {
  const double error = largest(difference(what, got, want));
  if (error == 0) return at_most(what, 0, kTensorBound);  // an expected tensor may be all zero
  at_most(what, error / std::sqrt(want.to(at::kDouble).square().mean().item<double>()),
          kTensorBound);
}

void Findings::absolute(const std::string& what, const at::Tensor& got, const at::Tensor& want,
                        double bound) {
  at_most(what, largest(difference(what, got, want)), bound);
}

void Findings::relative(const std::string& what, const at::Tensor& got, const at::Tensor& want,
                        double bound) {
  const at::Tensor error = difference(what, got, want);
  // 0 where equal: an expected 0 allows nothing else.
  at_most(what, largest(at::where(error.eq(0), error, error / want.to(at::kDouble).abs())), bound);
}

void Findings::relative(const std::string& what, double got, double want, double bound) {
  relative(what, at::scalar_tensor(got, at::kDouble), at::scalar_tensor(want, at::kDouble), bound);
}

void Findings::equal(const std::string& what, bool is_equal) {
  at_most(what, is_equal ? 0 : 1, 0);
}

bool Findings::passed() const {
  if (!failure_.empty()) return false;
  return !not_built_.empty() || (count_ > 0 && worst_.part() <= 1);
}

std::string Findings::line(const std::string& name) const {
  if (!failure_.empty()) return fmt::format("FAIL  {}: {}", name, failure_);
  if (!not_built_.empty()) return fmt::format("--    {}: {}", name, not_built_);
  if (count_ == 0) return fmt::format("FAIL  {}: nothing in it could be compared", name);
  std::string line =
      fmt::format("{:4}  {}: worst {:.1e} of {:.0e} ({}), {} figures", passed() ? "ok" : "FAIL",
                  name, worst_.error, worst_.bound, worst_.what, count_);
  if (!not_compared_.empty()) {
    line += fmt::format("; not compared: {}", fmt::join(not_compared_, ", "));
  }
  return line;
}

at::Tensor Expected::get(const std::string& name) const {
  used_.insert(name);
  return to_tensor(file_.get(name));
}

std::vector<std::string> Expected::names(std::string_view prefix) const {
  std::vector<std::string> names;
  for (const TensorView& tensor : file_.tensors()) {
    if (tensor.name.starts_with(prefix)) names.push_back(tensor.name);
  }
  return names;
}

void Expected::note_rest(Findings& findings) const {
  for (const std::string& name : names("")) {
    if (!used_.contains(name)) findings.not_compared(name);
  }
}

std::string without(std::string text, std::string_view part) {
  const size_t at = text.find(part);
  return at == std::string::npos ? text : text.erase(at, part.size());
}

}  // namespace halo::golden
