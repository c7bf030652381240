// Numbers as people read them.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "halo/base/html.h"

namespace halo {

inline constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

// "1,024"; three decimals more than the size of the number asks for; an en dash for what is not
// finite.
std::string format_figure(double value);
// "0.970", with a fixed number of decimals.
std::string format_fixed(double value, int decimals);
// "16K", "1.5M", "0.02", "1e-6": short enough for an axis.
std::string format_short(double value, int digits = 3);
// A number of tokens: "512", "8K" (of 1024), "1M", "1,000".
std::string format_length(double tokens);
// "96 B", "1.50 KiB", "24.0 MiB".
std::string format_bytes(double bytes);
// "0.970 ± 0.012"; without the error where it is not finite.
std::string format_estimate(double value, double standard_error, int decimals);
// "41 s", "12 min 5 s", "3 h 20 min".
std::string format_duration(double seconds);

}  // namespace halo
