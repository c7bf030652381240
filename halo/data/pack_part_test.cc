#include <gmock/gmock.h>

#include <map>

#include "halo/base/files.h"
#include "halo/data/pack.h"
#include "halo/data/shard_testing.h"

namespace halo {
namespace {

using test::error_of;
using testing::HasSubstr;

namespace fs = std::filesystem;

class PackPartTest : public testing::Test {
 protected:
  PackPartTest() {
    write_file(folder_ / "tokenizer.json", test::tokenizer_json());
    for (int file = 0; file < 5; ++file) {
      std::string lines;
      for (int i = 0; i < 20; ++i) {
        lines += json::serialize(
                     json::object{{"text", fmt::format("the rain in {} plains of {}", i, file)}}) +
                 "\n";
      }
      const fs::path path = folder_ / fmt::format("in-{}.jsonl", file);
      write_file(path, lines);
      inputs_.push_back(path);
    }
  }

  std::map<std::string, std::string> pack_in(int64_t parts) {
    const fs::path out = folder_ / fmt::format("out-{}", parts);
    PackOptions options;
    options.shard_tokens = 100;
    PackCounts all;
    for (int64_t i = parts; i-- > 0;) {
      const PackCounts counts =
          pack_part(inputs_, folder_ / "tokenizer.json", out, options, {i, parts});
      all.documents += counts.documents;
      all.files += counts.files;
    }
    EXPECT_EQ(all.documents, 100);
    EXPECT_EQ(all.files, 5);
    std::map<std::string, std::string> shards;
    for (const auto& entry : fs::directory_iterator(out)) {
      shards[entry.path().filename().string()] = read_file(entry.path());
    }
    return shards;
  }

  test::Folder folder_;
  std::vector<fs::path> inputs_;
};

TEST_F(PackPartTest, AnyNumberOfPartsLeavesTheSameShards) {
  const auto one = pack_in(1);
  EXPECT_GT(one.size(), 5u);
  EXPECT_TRUE(one.contains("file-00004-shard-00000.halotok"));
  EXPECT_EQ(pack_in(2), one);
  EXPECT_EQ(pack_in(5), one);
  EXPECT_EQ(pack_in(1), one) << "again, over those that are there";
  EXPECT_THAT(error_of([&] { pack_in(6); }), HasSubstr("there are 5 files"));
}

TEST_F(PackPartTest, IsReadFromText) {
  EXPECT_EQ(parse_pack_part("3/16").index, 3);
  EXPECT_EQ(parse_pack_part("3/16").count, 16);
  for (const char* text : {"", "3", "3/", "/4", "4/4", "-1/4", "1/2x", "a/b"}) {
    EXPECT_THAT(error_of([&] { parse_pack_part(text); }), HasSubstr("give I/N")) << text;
  }
}

}  // namespace
}  // namespace halo
