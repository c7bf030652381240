#include "halo/runtime/deal.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "halo/runtime/ranks.h"
#include "tests/testing.h"

namespace halo {
namespace {

// Pieces of different sizes, some beyond what ranks exchange at once.
std::string piece_of(int64_t i) {
  return std::string(i == 3 ? 3'500'000 : i % 3, static_cast<char>('a' + i));
}

TEST(Deal, GivesAllRanksAllPieces) {
  for (const int64_t n : {1, 2, 3, 8}) {
    for (const int64_t pieces : {0, 1, 5, 9}) {
      std::vector<std::set<int64_t>> done(n);
      run_threads(n, 60, [&](Communicator& ranks) {
        const std::vector<std::string> got = deal(ranks, pieces, [&](int64_t i) {
          done[ranks.rank()].insert(i);
          return piece_of(i);
        });
        ASSERT_EQ(std::ssize(got), pieces);
        for (int64_t i = 0; i < pieces; ++i) EXPECT_EQ(got[i], piece_of(i)) << i;
      });
      for (int64_t i = 0; i < pieces; ++i) {
        for (int64_t rank = 0; rank < n; ++rank) {
          EXPECT_EQ(done[rank].count(i), rank == i % n ? 1u : 0u);
        }
      }
    }
  }
}

TEST(Deal, AnErrorOfOneEndsAll) {
  EXPECT_EQ(test::error_of([] {
              run_threads(3, 60, [](Communicator& ranks) {
                deal(ranks, 6, [](int64_t i) -> std::string {
                  if (i == 4) throw_error("no answer to 4");
                  return "x";
                });
              });
            }),
            "no answer to 4");
}

TEST(Packer, IsUnpackedToTheSameBits) {
  const std::vector<double> numbers{0.1, -0.0, std::numeric_limits<double>::infinity()};
  const std::string bytes =
      Packer().add(std::nan("")).add(int64_t{-7}).add(std::string("a\0b", 3)).add(numbers).bytes();
  Unpacker packed(bytes);
  EXPECT_TRUE(std::isnan(packed.number()));
  EXPECT_EQ(packed.integer(), -7);
  EXPECT_EQ(packed.text(), std::string("a\0b", 3));
  EXPECT_EQ(packed.numbers(), numbers);
  EXPECT_NE(test::error_of([&] { packed.number(); }).find("8 bytes of an answer, 0 are left"),
            std::string::npos);
}

}  // namespace
}  // namespace halo
