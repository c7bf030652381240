#include "halo/eval/decode_time.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/model/model_testing.h"

namespace halo {
namespace {

using ::testing::ElementsAre;

TEST(DecodeTime, TimesEachLengthThatHasRoomForIt) {
  Engine engine(test::random_model(test::hybrid_config()), {Kernels::kReference, 8, 48});
  // 10 is too short for 18 steps, 68 too near 64; a text of 7 tokens goes round.
  const auto times = time_decoding(engine, {1, 2, 3, 4, 5, 6, 7}, {120, 10, 64, 68});
  std::vector<int64_t> lengths;
  for (const DecodeTime& time : times) {
    lengths.push_back(time.length);
    EXPECT_GT(time.seconds, 0);
    EXPECT_LT(time.seconds, 10);
    EXPECT_EQ(time.n, 15);
  }
  EXPECT_THAT(lengths, ElementsAre(64, 120));
  // The sequence is gone.
  EXPECT_EQ(engine.blocks().num_used(), 0);
  EXPECT_EQ(engine.slots().num_used(), 0);

  const json::object object = decode_times_to_json(times);
  ASSERT_EQ(object.size(), 2u);
  EXPECT_EQ(object.at("64").at("n"), 15);
  EXPECT_EQ(object.at("120").at("seconds").as_double(), times[1].seconds);
}

}  // namespace
}  // namespace halo
