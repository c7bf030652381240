#include "halo/report/markup.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace halo {
namespace {

constexpr const char* kDash = "–";

std::string group_thousands(std::string digits) {
  const size_t sign = digits.starts_with('-') ? 1 : 0;
  for (size_t at = digits.size(); at > sign + 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

}  // namespace

std::string format_figure(double value) {
  if (!std::isfinite(value)) return kDash;
  const double size = std::fabs(value);
  if (value == std::floor(value) && size < 1e15)
    return group_thousands(fmt::format("{:.0f}", value));
  if (size >= 1e4) return group_thousands(fmt::format("{:.0f}", value));
  if (size >= 1e-3) return fmt::format("{:.4g}", value);
  return fmt::format("{:.3g}", value);
}

std::string format_fixed(double value, int decimals) {
  if (!std::isfinite(value)) return kDash;
  std::string out = fmt::format("{:.{}f}", value, decimals);
  // No "-0.000" of what rounds to nothing.
  if (out.find_first_of("123456789") == std::string::npos && out[0] == '-') out.erase(0, 1);
  return out;
}

std::string format_short(double value, int digits) {
  if (!std::isfinite(value)) return kDash;
  const double size = std::fabs(value);
  // Rounded first, so that nothing reads "1000K".
  for (const auto& [unit, letter] : {std::pair{1e9, "G"}, {1e6, "M"}, {1e3, "K"}}) {
    if (size < unit * 0.9995) continue;
    return fmt::format("{:.{}g}{}", value / unit, digits, letter);
  }
  return fmt::format("{:.{}g}", value, digits);
}

std::string format_length(double tokens) {
  constexpr double kKilo = 1024, kMega = 1024 * 1024;
  if (tokens >= kMega && std::fmod(tokens, kMega) == 0) return fmt::format("{:g}M", tokens / kMega);
  if (tokens >= kKilo && std::fmod(tokens, kKilo) == 0) return fmt::format("{:g}K", tokens / kKilo);
  return format_figure(tokens);
}

std::string format_bytes(double bytes) {
  if (!std::isfinite(bytes)) return kDash;
  size_t unit = 0;
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  for (; bytes >= 1024 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  const int decimals = unit == 0 || bytes >= 100 ? 0 : bytes >= 10 ? 1 : 2;
  return fmt::format("{:.{}f} {}", bytes, decimals, kUnits[unit]);
}

std::string format_estimate(double value, double standard_error, int decimals) {
  std::string out = format_fixed(value, decimals);
  if (std::isfinite(value) && std::isfinite(standard_error)) {
    out += fmt::format(" ± {:.{}f}", standard_error, decimals);
  }
  return out;
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return kDash;
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace halo
