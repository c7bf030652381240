// Models in several files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/files.h"
#include "halo/formats/gguf.h"
#include "halo/formats/gguf_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

using test::GgufWriter;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class GgufParts : public testing::Test {
 protected:
  std::filesystem::path part(int number, int count = 3) const {
    return folder_ / fmt::format("m-{:05}-of-{:05}.gguf", number, count);
  }
  // A part with one tensor; the first has the metadata.
  static GgufWriter part_of(int number, const char* tensor, int count = 3) {
    GgufWriter w;
    w.entry("split.no", GgufWriter::kU16, GgufWriter::raw<uint16_t>(number));
    w.entry("split.count", GgufWriter::kU16, GgufWriter::raw<uint16_t>(count));
    w.entry("split.tensors.count", GgufWriter::kI32, GgufWriter::raw<int32_t>(count));
    if (number == 0) w.add("general.architecture", "llama");
    w.tensor(tensor, {2}, {static_cast<float>(number), 1});
    return w;
  }
  void write_all() const {
    write_file(part(1), part_of(0, "a").file());
    write_file(part(2), part_of(1, "b").file());
    write_file(part(3), part_of(2, "c").file());
  }
  std::string error() const {
    return test::error_of([&] { GgufFile file(part(1)); });
  }

  const test::Folder folder_;
};

TEST_F(GgufParts, AreReadAsOneFile) {
  write_all();
  const GgufFile file(part(1));
  EXPECT_TRUE(file.contents().metadata.contains("general.architecture"));
  const auto& tensors = file.contents().tensors;
  ASSERT_EQ(tensors.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(tensors[i].name, std::string(1, static_cast<char>('a' + i)));
    std::vector<float> values(2);
    dequantize(tensors[i].type, tensors[i].bytes, values);
    EXPECT_THAT(values, ElementsAre(static_cast<float>(i), 1));
  }
  // One part of one is a whole file, whatever its name.
  write_file(folder_ / "whole.gguf", part_of(0, "a", 1).file());
  EXPECT_EQ(GgufFile(folder_ / "whole.gguf").contents().tensors.size(), 1u);
}

TEST_F(GgufParts, WhatIsMissingIsNamed) {
  write_all();
  EXPECT_THAT(test::error_of([&] { GgufFile file(part(2)); }),
              AllOf(HasSubstr("is part 2 of 3"), HasSubstr("-00001-of-00003.gguf")));
  write_file(folder_ / "renamed.gguf", part_of(0, "a").file());
  EXPECT_THAT(test::error_of([&] { GgufFile file(folder_ / "renamed.gguf"); }),
              AllOf(HasSubstr("part 1 of 3"), HasSubstr("name does not end")));
  write_file(part(2), part_of(2, "b").file());
  EXPECT_THAT(error(), AllOf(HasSubstr("m-00002-of-00003.gguf"), HasSubstr("part 2 of 3")));
  write_file(part(2), part_of(1, "a").file());
  EXPECT_THAT(error(), HasSubstr("tensor 'a' is in an earlier part too"));
  GgufWriter more = part_of(1, "b");
  more.tensor("d", {2}, {1, 1});
  write_file(part(2), more.file());
  EXPECT_THAT(error(), HasSubstr("hold 4 tensors, 'split.tensors.count' says 3"));
  std::filesystem::remove(part(2));
  EXPECT_THAT(error(), AllOf(HasSubstr("part 2 is not there"), HasSubstr("m-00002-of-00003.gguf")));
}

}  // namespace
}  // namespace halo
