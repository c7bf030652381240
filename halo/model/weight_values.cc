// Looks at bits, whose pages are needed soon: the cost is that of reading the file.
#include "halo/model/weight_values.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <cstring>

#include "halo/base/check.h"

namespace halo {
namespace {

constexpr int64_t kGrain = int64_t{1} << 18;

// A type as bits: an exponent of ones alone means NaN or infinity. 0: an integer, without any.
template <class Word>
struct Elements {
  const std::byte* data;
  Word exponent;

  Word at(int64_t i) const {
    Word word;  // files do not align what they hold
    std::memcpy(&word, data + static_cast<size_t>(i) * sizeof(Word), sizeof(Word));
    return word;
  }
  bool is_number(Word word) const { return exponent == 0 || (word & exponent) != exponent; }
};

struct Findings {
  bool not_finite = false, not_zero = false;
};

template <class Word>
Findings look_at(const Elements<Word>& elements, int64_t numel) {
  std::atomic<bool> not_finite = false, not_zero = false;
  at::parallel_for(0, numel, kGrain, [&](int64_t begin, int64_t end) {
    Word any = 0;
    bool bad = false;
    for (int64_t i = begin; i < end; ++i) {
      const Word word = elements.at(i);
      any |= static_cast<Word>(word << 1);  // -0 is zero too
      bad |= !elements.is_number(word);
    }
    if (bad) not_finite = true;
    if (any != 0) not_zero = true;
  });
  return {not_finite, not_zero};
}

// "[2, 7]" of element `index` in row-major order.
std::string place_text(int64_t index, const std::vector<int64_t>& shape) {
  std::vector<int64_t> place(shape.size());
  for (size_t d = shape.size(); d-- > 0;) {
    place[d] = index % shape[d];
    index /= shape[d];
  }
  return fmt::format("[{}]", fmt::join(place, ", "));
}

bool may_be_zero(const std::string& name) {
  return name.ends_with(".bias") || name.ends_with(".o_gate.weight") ||
         name.ends_with(".z_proj.weight") || name.ends_with(".o_norm.weight") ||
         name.ends_with(".decay_proj.weight");
}

template <class Word>
void check(const TensorView& tensor, Word exponent, const std::string& from) {
  const Elements<Word> elements{tensor.bytes.data(), exponent};
  const int64_t numel = tensor.numel();
  const Findings found = look_at(elements, numel);
  if (found.not_finite) {
    int64_t first = -1, count = 0;
    for (int64_t i = 0; i < numel; ++i) {
      if (elements.is_number(elements.at(i))) continue;
      if (count++ == 0) first = i;
    }
    throw_error(
        "{}: tensor '{}' has {} value{} that {} NaN or infinite, the first at {}: the file is "
        "damaged or training diverged",
        from, tensor.name, count, count == 1 ? "" : "s", count == 1 ? "is" : "are",
        place_text(first, tensor.shape));
  }
  if (!found.not_zero && numel > 0 && !may_be_zero(tensor.name)) {
    throw_error(
        "{}: tensor '{}' is zero throughout: the file is damaged or was never written to its end",
        from, tensor.name);
  }
}

}  // namespace

void check_values(const TensorView& tensor, const std::string& from) {
  switch (tensor.dtype) {
    case DType::kF64:
      return check<uint64_t>(tensor, 0x7FF0'0000'0000'0000, from);
    case DType::kF32:
      return check<uint32_t>(tensor, 0x7F80'0000, from);
    case DType::kF16:
      return check<uint16_t>(tensor, 0x7C00, from);
    case DType::kBF16:
      return check<uint16_t>(tensor, 0x7F80, from);
    case DType::kI8:
      return check<uint8_t>(tensor, 0, from);
    default:
      return;
  }
}

}  // namespace halo
