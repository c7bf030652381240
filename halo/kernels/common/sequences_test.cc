#include "halo/kernels/common/sequences.h"

#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/base/check.h"

namespace halo {
namespace {

TEST(Sequences, OfOffsetsOnTheHost) {
  const Sequences sequences({0, 3, 3, 10}, at::kCPU);
  EXPECT_EQ(sequences.count(), 3);
  EXPECT_EQ(sequences.num_tokens(), 10);
  EXPECT_EQ(sequences.max_length(), 7);
  EXPECT_EQ(sequences.length(1), 0);
  EXPECT_TRUE(at::equal(sequences.offsets_i32(), at::tensor({0, 3, 3, 10}, at::kInt)));
}

TEST(Sequences, RefusesOffsetsThatAreNone) {
  using Offsets = std::vector<int64_t>;
  for (const Offsets& offsets : {Offsets{}, Offsets{1, 2}, Offsets{0, 5, 4}}) {
    EXPECT_ANY_THROW(Sequences(offsets, at::kCPU));
  }
  EXPECT_ANY_THROW(Sequences({0, int64_t{1} << 31}, at::kCPU)) << "more than 32 bits count";
}

// A form that needs them on the host must not go on with those of the batch before.
TEST(Sequences, OffsetsThatTheDeviceAloneKnowsAreNotReadOnTheHost) {
  const Sequences sequences(at::tensor({0, 4, 9, 9}, at::kInt), 9, 8);
  EXPECT_EQ(sequences.count(), 3);
  EXPECT_EQ(sequences.num_tokens(), 9);
  EXPECT_EQ(sequences.max_length(), 8);
  EXPECT_FALSE(sequences.known_to_host());
  EXPECT_ANY_THROW(sequences.offsets());
  EXPECT_ANY_THROW(sequences.length(0));
}

}  // namespace
}  // namespace halo
