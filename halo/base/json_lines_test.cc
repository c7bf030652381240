#include "halo/base/json_lines.h"

#include <gtest/gtest.h>

#include <limits>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/random.h"
#include "tests/testing.h"

namespace halo {
namespace {

TEST(JsonLines, ContinuesAtTheStepAsked) {
  const test::Folder folder;
  const auto path = folder / "metrics.jsonl";
  {
    JsonLines lines(path, -1);
    EXPECT_TRUE(lines.kept().empty());
    for (int64_t step = 1; step <= 3; ++step) {
      lines.append({{"step", step}, {"x", 0.1 * static_cast<double>(step)}});
    }
  }
  // As a crash in the middle of a write leaves it.
  write_file(path, read_file(path) + R"({"step":4,"x":)");
  JsonLines lines(path, 2);
  ASSERT_EQ(lines.kept().size(), 2u);
  EXPECT_EQ(lines.kept()[1].at("x").as_double(), 0.1 * 2.0);
  lines.append({{"step", 3}, {"x", nullptr}});
  EXPECT_EQ(read_file(path),
            "{\"step\":1,\"x\":1E-1}\n{\"step\":2,\"x\":2E-1}\n"
            "{\"step\":3,\"x\":null}\n");
}

// What a resumed run reports of its steps so far has the bits of a run that went on.
TEST(JsonLines, NumbersReadBackToTheSameBits) {
  const test::Folder folder;
  const auto path = folder / "metrics.jsonl";
  const Random random(1, "numbers");
  {
    JsonLines lines(path, -1);
    for (int64_t step = 1; step <= 200; ++step) {
      lines.append({{"step", step}, {"x", random.uniform(step)}});
    }
  }
  JsonLines lines(path, 200);
  ASSERT_EQ(lines.kept().size(), 200u);
  for (int64_t step = 1; step <= 200; ++step) {
    EXPECT_EQ(lines.kept()[step - 1].at("x").as_double(), random.uniform(step)) << step;
  }
}

TEST(JsonLines, AHalfWrittenLineAloneIsDropped) {
  const test::Folder folder;
  const auto path = folder / "metrics.jsonl";
  write_file(path, R"({"step":1)");
  JsonLines lines(path, 10);
  EXPECT_TRUE(lines.kept().empty());
  EXPECT_EQ(read_file(path), "");
}

TEST(JsonLines, SaysWhyItCannotOpen) {
  const test::Folder folder;
  write_file(folder / "file", "");
  EXPECT_THROW(JsonLines(folder / "file" / "x.jsonl", -1), Error);
}

TEST(FiniteOrNull, HasNoNaN) {
  EXPECT_TRUE(finite_or_null(std::numeric_limits<double>::quiet_NaN()).is_null());
  EXPECT_TRUE(finite_or_null(std::numeric_limits<double>::infinity()).is_null());
  EXPECT_EQ(finite_or_null(0.5).as_double(), 0.5);
}

}  // namespace
}  // namespace halo
