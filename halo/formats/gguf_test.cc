#include "halo/formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "halo/base/check.h"
#include "halo/base/random.h"
#include "halo/formats/gguf_testing.h"

namespace halo {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using W = test::GgufWriter;

Gguf parse(const std::string& bytes) {
  return parse_gguf(std::as_bytes(std::span(bytes)), "f.gguf");
}

std::string error_of(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const ParseError& error) {
    return error.what();
  }
  return "no error";
}

// Wrong files that are right but for one entry or tensor.
std::string with_entry(const std::string& key, auto type, const std::string& bytes) {
  W w;
  w.entry(key, type, bytes);
  return w.file();
}

std::string with_info(const std::vector<uint64_t>& extents, uint32_t type, uint64_t offset,
                      const std::string& name = "t") {
  W w;
  w.tensor("data", {16}, std::vector<float>(16));
  w.info(name, extents, type, offset);
  return w.file();
}

TEST(Gguf, MetadataOfEveryKind) {
  W w;
  w.entry("u8", W::kU8, W::raw<uint8_t>(200));
  w.entry("i8", W::kI8, W::raw<int8_t>(-3));
  w.entry("u16", W::kU16, W::raw<uint16_t>(65535));
  w.entry("i16", W::kI16, W::raw<int16_t>(-300));
  w.entry("u32", W::kU32, W::raw<uint32_t>(4000000000u));
  w.entry("i32", W::kI32, W::raw<int32_t>(-5));
  w.entry("u64", W::kU64, W::raw<uint64_t>(INT64_MAX));
  w.entry("i64", W::kI64, W::raw<int64_t>(INT64_MIN));
  w.entry("f32", W::kF32, W::raw(0.5f));
  w.entry("f64", W::kF64, W::raw(0.1));
  w.add("yes", true);
  w.add("text", "h\u00e4lo");
  w.add("texts", std::vector<std::string>{"a", "", "b c"});
  w.add("numbers", std::vector<int32_t>{1, -2});
  w.add("floats", std::vector<float>{0.25f});
  const std::string bytes = w.file();
  const auto metadata = parse(bytes).metadata;
  const auto integer = [&](const char* key) { return std::get<int64_t>(metadata.at(key)); };
  EXPECT_EQ(integer("u8"), 200);
  EXPECT_EQ(integer("i8"), -3);
  EXPECT_EQ(integer("u16"), 65535);
  EXPECT_EQ(integer("i16"), -300);
  EXPECT_EQ(integer("u32"), 4000000000);
  EXPECT_EQ(integer("i32"), -5);
  EXPECT_EQ(integer("u64"), INT64_MAX);
  EXPECT_EQ(integer("i64"), INT64_MIN);
  EXPECT_EQ(std::get<double>(metadata.at("f32")), 0.5);
  EXPECT_EQ(std::get<double>(metadata.at("f64")), 0.1);
  EXPECT_TRUE(std::get<bool>(metadata.at("yes")));
  EXPECT_EQ(std::get<std::string_view>(metadata.at("text")), "h\u00e4lo");
  EXPECT_THAT(std::get<std::vector<std::string_view>>(metadata.at("texts")),
              ElementsAre("a", "", "b c"));
  EXPECT_THAT(std::get<std::vector<int64_t>>(metadata.at("numbers")), ElementsAre(1, -2));
  EXPECT_THAT(std::get<std::vector<double>>(metadata.at("floats")), ElementsAre(0.25));
}

TEST(Gguf, TensorsInEitherVersionAndAlignment) {
  for (const uint32_t version : {2u, 3u}) {
    for (const uint32_t alignment : {8u, 32u, 64u}) {
      W w;
      w.version = version;
      w.alignment = alignment;
      w.add("general.alignment", alignment);
      w.tensor("a", {3, 2}, {1, 2, 3, 4, 5, 6});
      w.tensor("b", {1}, {7});
      const std::string bytes = w.file();
      const Gguf gguf = parse(bytes);
      ASSERT_EQ(gguf.tensors.size(), 2u);
      EXPECT_EQ(gguf.tensors[0].name, "a");
      EXPECT_THAT(gguf.tensors[0].shape, ElementsAre(2, 3));
      EXPECT_EQ(gguf.tensors[0].num_rows(), 2);
      std::vector<float> values(6);
      dequantize(gguf.tensors[0].type, gguf.tensors[0].bytes, values);
      EXPECT_THAT(values, ElementsAre(1, 2, 3, 4, 5, 6));
      EXPECT_EQ(gguf.tensors[1].bytes.size(), 4u);
    }
  }
}

TEST(Gguf, EveryTruncationIsAnError) {
  W w;
  w.add("general.architecture", "llama");
  w.add("texts", std::vector<std::string>{"a", "bc"});
  w.tensor("t", {4}, {1, 2, 3, 4});
  const std::string bytes = w.file();
  ASSERT_EQ(error_of(bytes), "no error");
  for (size_t length = 0; length < bytes.size(); ++length)
    EXPECT_THAT(error_of(bytes.substr(0, length)), HasSubstr("f.gguf: byte ")) << length;
}

TEST(Gguf, WrongHeaders) {
  const std::string good = W().file();
  EXPECT_THAT(error_of("GGUX" + good.substr(4)), HasSubstr("byte 0: does not begin with"));
  for (const uint32_t version : {0u, 1u, 4u, 0x03000000u}) {  // the last is big-endian
    W w;
    w.version = version;
    EXPECT_THAT(error_of(w.file()), HasSubstr("byte 4: version"));
  }
  // Counts that the file cannot hold, up to those whose product with a size overflows.
  for (const uint64_t count : {uint64_t{3}, uint64_t{1} << 32, ~uint64_t{0}}) {
    const std::string counts[] = {W::raw(count) + W::raw<uint64_t>(0),
                                  W::raw<uint64_t>(0) + W::raw(count)};
    for (const std::string& c : counts)
      EXPECT_THAT(error_of("GGUF" + W::raw<uint32_t>(3) + c), HasSubstr("byte ")) << count;
  }
}

TEST(Gguf, WrongMetadata) {
  const std::string huge = W::raw(~uint64_t{0});
  EXPECT_THAT(error_of(with_entry("k", W::kString, huge)), HasSubstr("beyond the file's end"));
  EXPECT_THAT(error_of(with_entry("k", W::kString, W::raw<uint64_t>(1) + "\xff")),
              HasSubstr("not UTF-8"));
  EXPECT_THAT(error_of(with_entry("k", 13, "")), HasSubstr("unknown type 13"));
  EXPECT_THAT(error_of(with_entry("k", W::kBool, "\2")), HasSubstr("no bool"));
  EXPECT_THAT(error_of(with_entry("k", W::kU64, huge)), HasSubstr("too large"));
  EXPECT_THAT(error_of(with_entry("", W::kU8, "a")), HasSubstr("a name of 0 bytes"));
  EXPECT_THAT(error_of(with_entry(std::string(257, 'k'), W::kU8, "a")), HasSubstr("257 bytes"));
  for (const auto type : {W::kU8, W::kI16, W::kF32, W::kF64, W::kString})
    for (const uint64_t count : {uint64_t{1} << 61, uint64_t{1} << 62, ~uint64_t{0}})
      EXPECT_THAT(error_of(with_entry("k", W::kArray, W::raw(type) + W::raw(count))),
                  HasSubstr("beyond the file's end"));
  EXPECT_THAT(error_of(with_entry("k", W::kArray, W::raw(W::kArray) + huge)),
              HasSubstr("an array of values of type 9"));
  W twice;
  twice.add("k", 1u);
  twice.add("k", 1u);
  EXPECT_THAT(error_of(twice.file()), HasSubstr("'k' is there twice"));
  for (const uint32_t alignment : {0u, 4u, 24u, 1u << 20}) {
    W w;
    w.add("general.alignment", alignment);
    EXPECT_THAT(error_of(w.file()), HasSubstr("general.alignment"));
  }
}

TEST(Gguf, WrongTensors) {
  EXPECT_THAT(error_of(with_info({8}, 0, 64)), HasSubstr("beyond the file's 64 bytes of data"));
  EXPECT_THAT(error_of(with_info({8}, 0, 32)), HasSubstr("overlaps"));
  EXPECT_THAT(error_of(with_info({1}, 0, 33)), HasSubstr("not aligned"));
  EXPECT_THAT(error_of(with_info({1}, 0, ~uint64_t{0} - 31)), HasSubstr("beyond"));
  EXPECT_THAT(error_of(with_info({}, 0, 0)), HasSubstr("0 dimensions"));
  EXPECT_THAT(error_of(with_info({1, 1, 1, 1, 1}, 0, 0)), HasSubstr("5 dimensions"));
  EXPECT_THAT(error_of(with_info({0}, 0, 0)), HasSubstr("extent 0"));
  EXPECT_THAT(error_of(with_info({1, 0}, 0, 0)), HasSubstr("extent 0"));
  // Products that overflow, and one that overflows only times the size of an element.
  EXPECT_THAT(error_of(with_info({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0)),
              HasSubstr("too large"));
  EXPECT_THAT(error_of(with_info({uint64_t{1} << 63}, 0, 0)), HasSubstr("too large"));
  EXPECT_THAT(error_of(with_info({uint64_t{1} << 62}, 0, 0)), HasSubstr("overflows 64 bits"));
  EXPECT_THAT(error_of(with_info({1}, 9, 0)), HasSubstr("type 9 is not supported"));
  EXPECT_THAT(error_of(with_info({33}, 8, 0)), HasSubstr("not whole blocks of 32"));
  EXPECT_THAT(error_of(with_info({32}, 12, 0)), HasSubstr("not whole blocks of 256"));
  W twice;
  twice.tensor("t", {1}, {1});
  twice.tensor("t", {1}, {1});
  EXPECT_THAT(error_of(twice.file()), HasSubstr("'t': is there twice"));
}

// ---- Blocks, against what their definitions say element by element.

// Fields of a block read by bit position instead of by byte.
struct Bits {
  const std::string& block;
  int bit(size_t byte, int index) const {
    return static_cast<unsigned char>(block[byte + index / 8]) >> index % 8 & 1;
  }
  int number(size_t byte, int first, int count) const {
    int value = 0;
    for (int i = 0; i < count; ++i) value += bit(byte, first + i) << i;
    return value;
  }
  int nibble(size_t byte, int index) const { return number(byte, 4 * index, 4); }
  double half(size_t byte) const {
    const int exponent = number(byte, 10, 5), fraction = number(byte, 0, 10);
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    return bit(byte, 15) ? -magnitude : magnitude;
  }
  int signed_byte(size_t byte) const { return static_cast<signed char>(block[byte]); }
};

// Element i of a block in exact arithmetic.
double element(GgufType type, const Bits& b, int i) {
  const int side = i / 16, j = i % 16;  // of the small types
  switch (type) {
    case GgufType::kQ8_0:
      return b.half(0) * b.signed_byte(2 + i);
    case GgufType::kQ4_0:
      return b.half(0) * (b.nibble(2, 2 * j + side) - 8);
    case GgufType::kQ4_1:
      return b.half(0) * b.nibble(4, 2 * j + side) + b.half(2);
    case GgufType::kQ5_0:
      return b.half(0) * (b.nibble(6, 2 * j + side) + 16 * b.bit(2, i) - 16);
    case GgufType::kQ5_1:
      return b.half(0) * (b.nibble(8, 2 * j + side) + 16 * b.bit(4, i)) + b.half(2);
    case GgufType::kQ4_K:
    case GgufType::kQ5_K: {
      const int part = i / 32, k = i % 32;
      const auto six = [&](int first) {  // scale (first = 0) or minimum (first = 4) of the part
        if (part < 4) return b.number(4 + first + part, 0, 6);
        return b.number(4 + 4 + part, first, 4) + 16 * b.number(4 + first + part - 4, 6, 2);
      };
      const bool five = type == GgufType::kQ5_K;
      int q = b.nibble(five ? 48 : 16, 2 * (part / 2 * 32 + k) + part % 2);
      if (five) q += 16 * b.bit(16 + k, part);
      return b.half(0) * six(0) * q - b.half(2) * six(4);
    }
    case GgufType::kQ6_K: {
      const int half = i / 128, quarter = i % 128 / 32, k = i % 32;
      const int low = b.nibble(64 * half + 32 * (quarter % 2) + k, quarter / 2);
      const int high = b.number(128 + 32 * half + k, 2 * quarter, 2);
      return b.half(208) * b.signed_byte(192 + i / 16) * (low + 16 * high - 32);
    }
    default:
      throw_error("not a block type");
  }
}

TEST(GgufBlocks, EveryElementOfRandomBlocks) {
  for (const GgufType type : {GgufType::kQ8_0, GgufType::kQ4_0, GgufType::kQ4_1, GgufType::kQ5_0,
                              GgufType::kQ5_1, GgufType::kQ4_K, GgufType::kQ5_K, GgufType::kQ6_K}) {
    const GgufBlock shape = gguf_block(type);
    const Random random(7, "blocks", static_cast<uint64_t>(type));
    std::string blocks;
    for (int64_t i = 0; i < 5 * shape.bytes; ++i)
      blocks += static_cast<char>(random.bits(static_cast<uint64_t>(i)) & 0xFF);
    std::vector<float> got(static_cast<size_t>(5 * shape.elements));
    // Infinite and absent scales have no value: keep the exponents of halves in range.
    for (int64_t block = 0; block < 5; ++block)
      for (const int64_t at : {int64_t{0}, int64_t{2}, int64_t{208}})
        if (at + 1 < shape.bytes) blocks[block * shape.bytes + at + 1] &= '\xBF';
    dequantize(type, std::as_bytes(std::span(blocks)), got);
    for (int64_t i = 0; i < 5 * shape.elements; ++i) {
      const std::string block = blocks.substr(i / shape.elements * shape.bytes, shape.bytes);
      const double want = element(type, {block}, static_cast<int>(i % shape.elements));
      // Two products and a sum in fp32; the terms may cancel.
      const double terms = std::abs(want) + 2 * std::abs(Bits{block}.half(2)) * 64;
      ASSERT_NEAR(got[i], want, 4 * 0x1p-24 * terms) << static_cast<int>(type) << " " << i;
    }
  }
}

TEST(GgufBlocks, SixteenBitTypes) {
  std::string halves, brains;
  std::vector<double> half_values, brain_values;
  for (const uint16_t bits :
       {0x0000, 0x8000, 0x3C00, 0xBC00, 0x7BFF, 0x0400, 0x03FF, 0x0001, 0x8001, 0x3555}) {
    halves += W::raw(bits);
    half_values.push_back(Bits{W::raw(bits)}.half(0));
  }
  for (const float value : {0.0f, 1.0f, -2.5f, 0x1p-130f, 3.0e38f}) {
    const auto bits = std::bit_cast<uint32_t>(value) & 0xFFFF0000u;
    brains += W::raw(static_cast<uint16_t>(bits >> 16));
    brain_values.push_back(std::bit_cast<float>(bits));
  }
  std::vector<float> got(half_values.size());
  dequantize(GgufType::kF16, std::as_bytes(std::span(halves)), got);
  for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], half_values[i]) << i;
  got.resize(brain_values.size());
  dequantize(GgufType::kBF16, std::as_bytes(std::span(brains)), got);
  for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], brain_values[i]) << i;
  got.resize(2);
  const std::string special = W::raw<uint16_t>(0x7C00) + W::raw<uint16_t>(0x7E00);
  dequantize(GgufType::kF16, std::as_bytes(std::span(special)), got);
  EXPECT_EQ(got[0], INFINITY);
  EXPECT_TRUE(std::isnan(got[1]));
}

}  // namespace
}  // namespace halo
