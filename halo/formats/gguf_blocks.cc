// The block formats of ggml, each as its definition says. Products and sums are single fp32
// operations in that order, so values are those of the reference to the bit.
#include <array>
#include <bit>
#include <cstring>

#include "halo/base/check.h"
#include "halo/formats/gguf.h"

namespace halo {
namespace {

constexpr int64_t kSmall = 32, kSuper = 256;  // elements of a block

const uint8_t* bytes_at(const std::byte* block, size_t offset) {
  return reinterpret_cast<const uint8_t*>(block) + offset;
}

float bf16_at(const std::byte* at) {
  uint16_t half;
  std::memcpy(&half, at, sizeof(half));
  return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
}

float f16_at(const std::byte* at) {
  uint16_t half;
  std::memcpy(&half, at, sizeof(half));
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 0x1F, fraction = half & 0x3FF;
  if (exponent == 0) {  // zero or subnormal: a multiple of 2^-24
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  const uint32_t rebased = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | rebased << 23 | fraction << 13);
}

void read_q8_0(const std::byte* block, float* out) {
  const float d = f16_at(block);
  for (int i = 0; i < kSmall; ++i)
    out[i] = d * static_cast<float>(static_cast<int8_t>(bytes_at(block, 2)[i]));
}

// Elements 0..15 are the low halves of 16 bytes, 16..31 the high ones.
void read_nibbles(const uint8_t* quants, int* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = quants[i] & 0xF;
    out[i + 16] = quants[i] >> 4;
  }
}

// The fifth bits of 32 elements, one a bit.
void add_fifth_bits(const uint8_t* bits, int* out) {
  uint32_t all;
  std::memcpy(&all, bits, sizeof(all));
  for (int i = 0; i < kSmall; ++i) out[i] |= static_cast<int>(all >> i & 1) << 4;
}

// Q4_0, Q4_1, Q5_0, Q5_1: a scale, perhaps a minimum, perhaps fifth bits, nibbles.
template <bool kMinimum, bool kFive>
void read_small(const std::byte* block, float* out) {
  const float d = f16_at(block);
  const size_t bits = kMinimum ? 4 : 2, nibbles = bits + (kFive ? 4 : 0);
  std::array<int, kSmall> q;
  read_nibbles(bytes_at(block, nibbles), q.data());
  if (kFive) add_fifth_bits(bytes_at(block, bits), q.data());
  for (int i = 0; i < kSmall; ++i) {
    if (kMinimum) {
      const float scaled = d * static_cast<float>(q[i]);
      out[i] = scaled + f16_at(block + 2);
    } else {
      out[i] = d * static_cast<float>(q[i] - (kFive ? 16 : 8));
    }
  }
}

// Scale and minimum of part j of 8: 6 bits each, 12 bytes in all.
std::pair<int, int> scale_and_minimum(const uint8_t* s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 0xF) | (s[j - 4] >> 6) << 4, s[j + 4] >> 4 | (s[j] >> 6) << 4};
}

// Q4_K, Q5_K: 8 parts of 32, each with a scale and a minimum; parts 2n and 2n + 1 are the low and
// the high halves of 32 bytes.
template <bool kFive>
void read_k(const std::byte* block, float* out) {
  const float d = f16_at(block), least = f16_at(block + 2);
  const uint8_t *scales = bytes_at(block, 4), *bits = bytes_at(block, 16),
                *quants = bytes_at(block, kFive ? 48 : 16);
  for (int part = 0; part < 8; ++part) {
    const auto [scale, minimum] = scale_and_minimum(scales, part);
    const float part_d = d * static_cast<float>(scale);
    const float part_least = least * static_cast<float>(minimum);
    for (int i = 0; i < 32; ++i) {
      const uint8_t byte = quants[part / 2 * 32 + i];
      int q = part % 2 == 0 ? byte & 0xF : byte >> 4;
      if (kFive) q |= (bits[i] >> part & 1) << 4;
      const float scaled = part_d * static_cast<float>(q);
      out[part * 32 + i] = scaled - part_least;
    }
  }
}

// Q6_K: two halves of 128, each 64 bytes of low nibbles and 32 bytes of high pairs of bits; a scale
// for 16 elements.
void read_q6_k(const std::byte* block, float* out) {
  const uint8_t *low = bytes_at(block, 0), *high = bytes_at(block, 128),
                *scales = bytes_at(block, 192);
  const float d = f16_at(block + 208);
  for (int i = 0; i < kSuper; ++i) {
    const int half = i / 128, quarter = i % 128 / 32, j = i % 32;
    const uint8_t byte = low[half * 64 + quarter % 2 * 32 + j];
    const int nibble = quarter < 2 ? byte & 0xF : byte >> 4;
    const int pair = high[half * 32 + j] >> (2 * quarter) & 3;
    const float scaled = d * static_cast<float>(static_cast<int8_t>(scales[i / 16]));
    out[i] = scaled * static_cast<float>((nibble | pair << 4) - 32);
  }
}

template <class Read>
void read_blocks(GgufBlock block, std::span<const std::byte> blocks, float* out, const Read& read) {
  for (size_t at = 0; at < blocks.size(); at += block.bytes, out += block.elements)
    read(blocks.data() + at, out);
}

}  // namespace

GgufBlock gguf_block(GgufType type) {
  switch (type) {
    case GgufType::kF32:
      return {1, 4};
    case GgufType::kF16:
    case GgufType::kBF16:
      return {1, 2};
    case GgufType::kQ8_0:
      return {kSmall, 34};
    case GgufType::kQ4_0:
      return {kSmall, 18};
    case GgufType::kQ4_1:
      return {kSmall, 20};
    case GgufType::kQ5_0:
      return {kSmall, 22};
    case GgufType::kQ5_1:
      return {kSmall, 24};
    case GgufType::kQ4_K:
      return {kSuper, 144};
    case GgufType::kQ5_K:
      return {kSuper, 176};
    case GgufType::kQ6_K:
      return {kSuper, 210};
  }
  throw_error("not a GgufType: {}", static_cast<int>(type));
}

void dequantize(GgufType type, std::span<const std::byte> blocks, std::span<float> out) {
  const GgufBlock block = gguf_block(type);
  HALO_CHECK(blocks.size() % block.bytes == 0 &&
                 out.size() == blocks.size() / block.bytes * block.elements,
             "dequantize: {} bytes in blocks of {} for {} values", blocks.size(), block.bytes,
             out.size());
  const auto each = [&](const auto& read) { read_blocks(block, blocks, out.data(), read); };
  switch (type) {
    case GgufType::kF32:
      std::memcpy(out.data(), blocks.data(), blocks.size());
      return;
    case GgufType::kF16:
      return each([](const std::byte* at, float* value) { *value = f16_at(at); });
    case GgufType::kBF16:
      return each([](const std::byte* at, float* value) { *value = bf16_at(at); });
    case GgufType::kQ8_0:
      return each(read_q8_0);
    case GgufType::kQ4_0:
      return each(read_small<false, false>);
    case GgufType::kQ4_1:
      return each(read_small<true, false>);
    case GgufType::kQ5_0:
      return each(read_small<false, true>);
    case GgufType::kQ5_1:
      return each(read_small<true, true>);
    case GgufType::kQ4_K:
      return each(read_k<false>);
    case GgufType::kQ5_K:
      return each(read_k<true>);
    case GgufType::kQ6_K:
      return each(read_q6_k);
  }
  throw_error("not a GgufType: {}", static_cast<int>(type));
}

}  // namespace halo
