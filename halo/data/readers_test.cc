#include "halo/data/readers.h"

#include <gmock/gmock.h>

#include "halo/data/parquet_testing.h"
#include "halo/data/readers_testing.h"

namespace halo {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

// Many lines that do not compress away, so that several buffers are needed.
std::string many_lines(int64_t count) {
  std::string lines;
  uint64_t state = 1;
  for (int64_t i = 0; i < count; ++i) {
    lines += fmt::format("{{\"text\": \"{}", i);
    for (int n = 0; n < 40; ++n) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      lines += fmt::format(" {:x}", state >> 20);
    }
    lines += "\"}\n";
  }
  return lines;
}

TEST(Readers, ReadEveryKind) {
  const Folder folder;
  const std::string lines =
      "{\"text\": \"one\\ntwo\", \"source\": \"book:1\"}\n\n{\"text\": \"three\", \"n\": 3}";
  write_file(folder / "a.txt", "plain\n\ntext");
  write_file(folder / "b.txt.gz", gzip("packed text"));
  write_file(folder / "c.jsonl", lines);
  write_file(folder / "d.jsonl.zst", zstd(lines));
  write_file(folder / "e.jsonl.gz", gzip(lines));
  write_file(folder / "ignored.md", "not text");
  EXPECT_THAT(read({folder.path()}),
              ElementsAre("a.txt|plain\n\ntext", "b.txt.gz|packed text", "book:1|one\ntwo",
                          "|three", "book:1|one\ntwo", "|three", "book:1|one\ntwo", "|three"));
  EXPECT_THAT(read({folder / "c.jsonl", folder / "a.txt"}),
              ElementsAre("book:1|one\ntwo", "|three", "a.txt|plain\n\ntext"));
}

TEST(Readers, FramesAndMembersFollowEachOther) {
  const Folder folder;
  const std::string first = many_lines(2000), second = "{\"text\": \"last\"}\n";
  write_file(folder / "a.jsonl", first + second);
  write_file(folder / "b.jsonl.zst", zstd(first) + zstd(second));
  write_file(folder / "c.jsonl.gz", gzip(first) + gzip(second));
  const auto expected = read({folder / "a.jsonl"});
  ASSERT_EQ(expected.size(), 2001);
  EXPECT_EQ(read({folder / "b.jsonl.zst"}), expected);
  EXPECT_EQ(read({folder / "c.jsonl.gz"}), expected);
}

TEST(Readers, DamagedStreamsAreErrors) {
  const Folder folder;
  const std::string lines = many_lines(2000);
  for (const auto& [name, packed] :
       {std::pair{"x.jsonl.zst", zstd(lines)}, std::pair{"x.jsonl.gz", gzip(lines)}}) {
    const auto path = folder / name;
    for (const size_t length : {size_t{0}, size_t{3}, packed.size() / 2, packed.size() - 1}) {
      write_file(path, packed.substr(0, length));
      EXPECT_THAT(error_of([&] { read({path}); }),
                  testing::AllOf(HasSubstr(name), HasSubstr("truncated"), HasSubstr("byte")))
          << length;
    }
    std::string broken = packed;
    for (size_t i = broken.size() / 2; i < broken.size() / 2 + 64; ++i) broken[i] ^= 0x55;
    write_file(path, broken);
    EXPECT_NE(error_of([&] { read({path}); }), "no error") << name;
    write_file(path, "this is no compressed stream at all");
    EXPECT_THAT(error_of([&] { read({path}); }), HasSubstr("damaged"));
  }
}

TEST(Readers, BadLinesAreNamed) {
  const Folder folder;
  const auto path = folder / "a.jsonl";
  for (const std::string bad : {"{\"text\": ", "[1]", "{\"body\": \"x\"}", "{\"text\": 5}"}) {
    write_file(path, "{\"text\": \"fine\"}\n\n" + bad + "\n");
    EXPECT_THAT(error_of([&] { read({path}); }),
                testing::AllOf(HasSubstr("a.jsonl"), HasSubstr("line 3")))
        << bad;
  }
}

TEST(Readers, UnknownInputsAreNamed) {
  const Folder folder;
  write_file(folder / "a.md", "x");
  EXPECT_THAT(error_of([&] { read({folder / "a.md"}); }), HasSubstr("a.md"));
  EXPECT_THAT(error_of([&] { read({folder / "b.txt"}); }), HasSubstr("b.txt"));
  EXPECT_THAT(error_of([&] { read({folder.path()}); }), HasSubstr(".jsonl"));
}

#ifdef HALO_HAVE_PARQUET
// A thousand rows, in groups of 300.
void write_texts(const std::filesystem::path& path, const std::string& text_column) {
  std::vector<std::optional<std::string>> texts, sources(1000, "book:x");
  for (int64_t i = 0; i < 1000; ++i) texts.push_back(fmt::format("text {}", i));
  sources[1] = std::nullopt;
  write_parquet(path,
                {{"number", numbers(1000)},
                 {text_column, column<arrow::LargeStringBuilder>(texts)},
                 {"source", column<arrow::StringBuilder>(sources)}},
                300);
}

TEST(Readers, ReadParquet) {
  const Folder folder;
  write_texts(folder / "a.parquet", "text");
  const auto documents = read({folder.path()});
  ASSERT_EQ(documents.size(), 1000);
  EXPECT_EQ(documents[0], "book:x|text 0");
  EXPECT_EQ(documents[1], "|text 1");
  EXPECT_EQ(documents[999], "book:x|text 999");

  write_texts(folder / "b.parquet", "body");
  EXPECT_THAT(error_of([&] { read({folder / "b.parquet"}); }),
              testing::AllOf(HasSubstr("b.parquet"), HasSubstr("\"text\"")));
  write_texts(folder / "c.parquet", "text");
  const std::string whole = read_file(folder / "c.parquet");
  write_file(folder / "c.parquet", whole.substr(0, whole.size() / 2));
  EXPECT_THAT(error_of([&] { read({folder / "c.parquet"}); }), HasSubstr("c.parquet"));
}
#else
TEST(Readers, RefuseParquetWithoutArrow) {
  const Folder folder;
  write_file(folder / "a.parquet", "x");
  EXPECT_THAT(error_of([&] { read({folder / "a.parquet"}); }), HasSubstr("pyarrow"));
}
#endif

}  // namespace
}  // namespace halo
