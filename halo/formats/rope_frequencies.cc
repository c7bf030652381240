// Rotary frequencies of a configuration, in double precision.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "halo/base/check.h"
#include "halo/formats/model_config.h"

namespace halo {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

// Llama 3: long wavelengths are divided by the factor, short ones kept, those between blended.
double scale_llama3(double frequency, const RopeScaling& scaling) {
  const double length = static_cast<double>(scaling.original_max_position_embeddings);
  const double turns = length * frequency / kTwoPi;
  const double kept = std::clamp(
      (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0.0,
      1.0);
  return kept * frequency + (1 - kept) * frequency / scaling.factor;
}

// YaRN (arXiv 2309.00071): a ramp over the index of the frequency, between the indices that turn
// beta_fast and beta_slow times within the original length.
void scale_yarn(std::vector<double>& frequencies, int64_t head_dim, double theta,
                const RopeScaling& scaling) {
  const auto index_of = [&](double turns) {
    const double length = static_cast<double>(scaling.original_max_position_embeddings);
    return static_cast<double>(head_dim) * std::log(length / (turns * kTwoPi)) /
           (2 * std::log(theta));
  };
  const double first = index_of(scaling.beta_fast), last = index_of(scaling.beta_slow);
  const double low = std::max(scaling.truncate ? std::floor(first) : first, 0.0);
  const double high =
      std::min(scaling.truncate ? std::ceil(last) : last, static_cast<double>(head_dim - 1));
  const double width = high == low ? 0.001 : high - low;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double scaled = std::clamp((static_cast<double>(i) - low) / width, 0.0, 1.0);
    frequencies[i] *= scaled / scaling.factor + (1 - scaled);
  }
}

}  // namespace

std::vector<double> rope_frequencies(const ModelConfig& config, int64_t head_dim) {
  HALO_CHECK(head_dim > 0 && head_dim % 2 == 0, "rope_frequencies: expected an even size, got {}",
             head_dim);
  std::vector<double> frequencies(head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] =
        std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
  const RopeScaling& scaling = config.rope_scaling;
  switch (scaling.type) {
    case RopeScaling::Type::kNone:
      break;
    case RopeScaling::Type::kLinear:
      for (double& frequency : frequencies) frequency /= scaling.factor;
      break;
    case RopeScaling::Type::kLlama3:
      for (double& frequency : frequencies) frequency = scale_llama3(frequency, scaling);
      break;
    case RopeScaling::Type::kYarn:
      scale_yarn(frequencies, head_dim, config.rope_theta, scaling);
      break;
  }
  return frequencies;
}

double rope_magnitude(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.type != RopeScaling::Type::kYarn) return 1;
  if (scaling.attention_factor != 0) return scaling.attention_factor;
  return scaling.factor <= 1 ? 1 : 0.1 * std::log(scaling.factor) + 1;
}

}  // namespace halo
