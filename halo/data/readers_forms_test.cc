// Forms of corpora that other programs write: what is read, what is left out and what is said.
#include <gmock/gmock.h>

#include "halo/data/parquet_testing.h"
#include "halo/data/readers_testing.h"

namespace halo {
namespace {

using namespace test;
using namespace testing;

// What `call` writes to stderr.
template <class F>
std::string warnings_of(F call) {
  internal::CaptureStderr();
  call();
  return internal::GetCapturedStderr();
}

std::string line_of(const std::string& text) {
  return "{\"text\": \"" + text + "\"}\n";
}

TEST(ReaderForms, EndingsOfJsonLines) {
  const Folder folder;
  const std::vector<std::pair<std::string, std::string>> files = {
      {"a.json.gz", gzip(line_of("a"))},   {"b.json.zst", zstd(line_of("b"))},
      {"c.ndjson", line_of("c")},          {"d.JSONL", line_of("d")},
      {"e.ndjson.gz", gzip(line_of("e"))}, {"f.Jsonl.GZ", gzip(line_of("f"))},
      {"g.jsonl.ZST", zstd(line_of("g"))}, {"h.jsonl.zstd", zstd(line_of("h"))},
      {"i.jsonlines", line_of("i")},       {"j.NDJSON.ZST", zstd(line_of("j"))}};
  std::vector<std::string> expected;
  for (const auto& [name, bytes] : files) {
    write_file(folder / name, bytes);
    expected.push_back("|" + name.substr(0, 1));
  }
  write_file(folder / "k.TXT", "k");
  expected.push_back("k.TXT|k");
  EXPECT_EQ(warnings_of([&] { EXPECT_EQ(read({folder.path()}), expected); }), "");
  write_file(folder / "alone.json", line_of("alone"));
  EXPECT_THAT(read({folder / "alone.json"}), ElementsAre("|alone"));
}

TEST(ReaderForms, FilesThatAreLeftOutAreCountedAndNamed) {
  const Folder folder;
  write_file(folder / "a.jsonl", line_of("a"));
  EXPECT_THAT(expand_inputs({folder.path()}).skipped, IsEmpty());
  std::filesystem::create_directory(folder / "more");
  for (const char* name : {"b.csv", "more/c.jsonl.bz2", "more/state.json", "README.md", "d"})
    write_file(folder / name, "x");
  InputFiles files;
  EXPECT_THAT(warnings_of([&] { files = expand_inputs({folder.path()}); }),
              AllOf(HasSubstr("5 of its 6 files are left out"),
                    HasSubstr("README.md, b.csv, d, more/c.jsonl.bz2, more/state.json\n")));
  EXPECT_THAT(files.read, ElementsAre(folder / "a.jsonl"));
  EXPECT_EQ(files.skipped.size(), 5u);
  EXPECT_THAT(warnings_of([&] { read({folder.path()}); }), HasSubstr("b.csv"));
  // Links: to a file as the file, to a folder or to nothing left out.
  std::filesystem::create_symlink(folder / "a.jsonl", folder / "e.jsonl");
  std::filesystem::create_symlink(folder / "none.jsonl", folder / "f.jsonl");
  std::filesystem::create_directory_symlink(folder / "more", folder / "g");
  EXPECT_THAT(warnings_of([&] { files = expand_inputs({folder.path()}); }),
              HasSubstr("README.md, b.csv, d, f.jsonl, g, more/c.jsonl.bz2, more/state.json\n"));
  EXPECT_THAT(files.read, ElementsAre(folder / "a.jsonl", folder / "e.jsonl"));
  // A file that is asked for by name is an error.
  EXPECT_THAT(error_of([&] { read({folder / "b.csv"}); }), HasSubstr("b.csv: not a kind"));
}

TEST(ReaderForms, ByteOrderMarks) {
  const Folder folder;
  const std::string mark = "\xef\xbb\xbf", lines = line_of("one") + line_of("two");
  write_file(folder / "a.jsonl", mark + lines);
  write_file(folder / "b.jsonl.gz", gzip(mark + lines));
  write_file(folder / "c.txt", mark + "plain");
  write_file(folder / "d.txt", mark);
  write_file(folder / "e.txt.zst", zstd("a" + mark + "b"));  // inside it is a character
  write_file(folder / "f.txt", "ab");
  EXPECT_THAT(read({folder.path()}), ElementsAre("|one", "|two", "|one", "|two", "c.txt|plain",
                                                 "d.txt|", "e.txt.zst|a" + mark + "b", "f.txt|ab"));
  for (const char* name : {"x.jsonl", "x.txt"}) {
    write_file(folder / name, std::string("\xff\xfe{\0}\0", 6));
    EXPECT_THAT(error_of([&] { read({folder / name}); }),
                AllOf(HasSubstr(name), HasSubstr("byte-order mark of UTF-16")));
  }
}

TEST(ReaderForms, NullTextsAndSourcesOfJsonLines) {
  const Folder folder;
  const auto path = folder / "a.jsonl";
  write_file(path, "{\"text\": null}\n{\"text\": \"a\", \"source\": null}\n");
  for (const SourceUse use : {SourceUse::kIfText, SourceUse::kNeeded})
    EXPECT_THAT(read({path}, use), ElementsAre("|", "|a"));
  for (const char* source : {"5", "[\"x\"]", "{\"name\": \"x\"}", "true"}) {
    write_file(path, fmt::format("{{\"text\": \"a\", \"source\": {}}}\n", source));
    EXPECT_THAT(read({path}), ElementsAre("|a"));
    EXPECT_THAT(error_of([&] { read({path}, SourceUse::kNeeded); }),
                AllOf(HasSubstr("line 1"), HasSubstr("'source'")));
  }
  for (const char* text : {"5", "[\"x\"]", "{}", "false"}) {
    write_file(path, fmt::format("{{\"text\": {}}}\n", text));
    EXPECT_THAT(error_of([&] { read({path}); }), AllOf(HasSubstr("line 1"), HasSubstr("'text'")));
  }
}

TEST(ReaderForms, TextThatIsNoUtf8) {
  const Folder folder;
  write_file(folder / "a.jsonl", line_of("fine") + line_of("caf\xe9"));
  EXPECT_THAT(
      error_of([&] { read({folder / "a.jsonl"}); }),
      HasSubstr("a.jsonl: line 2: byte 13: invalid JSON: the byte E9 is no UTF-8 (Latin-1"));
  write_file(folder / "b.jsonl", line_of("\\ud83d"));
  EXPECT_THAT(
      error_of([&] { read({folder / "b.jsonl"}); }),
      HasSubstr("b.jsonl: line 1: byte 10: invalid JSON: \\ud83d is half a surrogate pair"));
  write_file(folder / "c.txt", "un caf\xe9, deux caf\xe9s");
  EXPECT_EQ(warnings_of([&] {
              EXPECT_THAT(read({folder / "c.txt"}), ElementsAre("c.txt|un caf\xe9, deux caf\xe9s"));
            }),
            fmt::format("warning: {}: byte 6: the byte E9 is no UTF-8 (Latin-1 or Windows-1252?); "
                        "such bytes become U+FFFD\n",
                        (folder / "c.txt").string()));
  write_file(folder / "d.txt", "un caf\xc3\xa9");
  EXPECT_EQ(warnings_of([&] { read({folder / "d.txt"}); }), "");
}

TEST(ReaderForms, GzipMembersAndPadding) {
  const Folder folder;
  const auto path = folder / "a.jsonl.gz";
  const std::string one = gzip(line_of("one")), two = gzip(line_of("two"));
  const std::string buffer(size_t{1} << 18, '\0');  // as long as what is read at once
  for (const std::string& padded :
       {one + two, one + std::string(512, '\0') + two, one + std::string(7, '\0') + two + '\0',
        one + buffer + two + buffer + buffer}) {
    write_file(path, padded);
    EXPECT_THAT(read({path}), ElementsAre("|one", "|two"));
  }
  const std::string zeros(16, '\0');
  for (const std::string& damaged :
       {one + "\1garbage", one + zeros + "x", zeros + one, zeros, one.substr(0, one.size() - 4)}) {
    write_file(path, damaged);
    EXPECT_THAT(error_of([&] { read({path}); }), HasSubstr("a.jsonl.gz: byte")) << damaged.size();
  }
}

// A frame of `text` with a window of 2^log bytes, as `zstd --long` makes of a stream.
std::string zstd_with_window(const std::string& text, int log) {
  // By hand: a compressor would take the memory that the header promises.
  std::string packed("\x28\xb5\x2f\xfd", 4);
  packed += '\0';                                // neither content size nor checksum
  packed += static_cast<char>((log - 10) << 3);  // the window
  const auto block = static_cast<uint32_t>(text.size()) << 3 | 1;  // raw, the last
  for (int i = 0; i < 3; ++i) packed += static_cast<char>(block >> (8 * i) & 0xFF);
  return packed + text;
}

TEST(ReaderForms, ZstdWindows) {
  const Folder folder;
  const auto path = folder / "a.jsonl.zst";
  for (const int log : {10, 27, 28, 30}) {
    write_file(path, zstd(line_of("zero")) + zstd_with_window(line_of("one"), log));
    EXPECT_THAT(read({path}), ElementsAre("|zero", "|one")) << log;
  }
  write_file(path, zstd(line_of("zero")) + zstd_with_window(line_of("one"), 31));
  EXPECT_THAT(error_of([&] { read({path}); }),
              AllOf(HasSubstr("a window of 2147483648 bytes, more than the 1073741824 allowed"),
                    Not(HasSubstr("damaged"))));
  // One segment, whose window is its content of 2^40 bytes.
  write_file(path, std::string("\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\1\0\0\1\0\0", 16));
  EXPECT_THAT(error_of([&] { read({path}); }), HasSubstr("a window of 1099511627776 bytes"));
}

#ifdef HALO_HAVE_PARQUET

std::shared_ptr<arrow::Array> list_column(int64_t count) {
  const auto values = std::make_shared<arrow::StringBuilder>();
  arrow::ListBuilder builder(arrow::default_memory_pool(), values);
  for (int64_t i = 0; i < count; ++i) {
    EXPECT_TRUE(builder.Append().ok());
    EXPECT_TRUE(values->Append("item").ok());
  }
  return builder.Finish().ValueOrDie();
}

std::shared_ptr<arrow::Array> dictionary(std::shared_ptr<arrow::Array> words,
                                         const std::vector<int>& indices) {
  arrow::Int16Builder builder;
  for (const int index : indices)
    EXPECT_TRUE(
        (index < 0 ? builder.AppendNull() : builder.Append(static_cast<int16_t>(index))).ok());
  return arrow::DictionaryArray::FromArrays(arrow::dictionary(arrow::int16(), words->type()),
                                            builder.Finish().ValueOrDie(), words)
      .ValueOrDie();
}

TEST(ReaderForms, ParquetTextInEveryForm) {
  const Folder folder;
  const std::vector<std::optional<std::string>> texts = {"one", std::nullopt,
                                                         "a text longer than a view holds", "one"};
  const std::vector<std::optional<std::string>> words = {"a text longer than a view holds", "one"};
  const std::vector<int> indices = {1, -1, 0, 1};
  const auto path = folder / "a.parquet";
  for (const auto& text :
       {column<arrow::StringBuilder>(texts), column<arrow::LargeStringBuilder>(texts),
        column<arrow::StringViewBuilder>(texts),
        dictionary(column<arrow::StringBuilder>(words), indices),
        dictionary(column<arrow::LargeStringBuilder>(words), indices)}) {
    write_parquet(path, {{"n", numbers(4)}, {"text", text}, {"tags", list_column(4)}});
    EXPECT_THAT(read({path}), ElementsAre("|one", "|", "|a text longer than a view holds", "|one"))
        << text->type()->ToString();
  }
  write_parquet(path, {{"text", std::make_shared<arrow::NullArray>(2)}});
  EXPECT_THAT(read({path}), ElementsAre("|", "|"));
  for (const auto& text : {numbers(4), list_column(4), dictionary(numbers(2), {0, 1, 0, 1})}) {
    write_parquet(path, {{"text", text}});
    EXPECT_THAT(error_of([&] { read({path}); }),
                AllOf(HasSubstr("a.parquet: column \"text\" is"), HasSubstr("not text")));
  }
}

TEST(ReaderForms, ParquetSourcesOfEveryKind) {
  const Folder folder;
  const auto path = folder / "a.parquet";
  const auto texts = column<arrow::StringBuilder>({"a", "b", "c"});
  const auto words = column<arrow::StringBuilder>({"book:1"});
  for (const auto& source :
       {dictionary(words, {0, -1, 0}),
        column<arrow::StringBuilder>({"book:1", std::nullopt, "book:1"}),
        column<arrow::StringViewBuilder>({"book:1", std::nullopt, "book:1"})}) {
    write_parquet(path, {{"text", texts}, {"source", source}});
    for (const SourceUse use : {SourceUse::kIfText, SourceUse::kNeeded})
      EXPECT_THAT(read({path}, use), ElementsAre("book:1|a", "|b", "book:1|c"));
  }
  for (const auto& source : {numbers(3), list_column(3), dictionary(numbers(1), {0, 0, 0})}) {
    write_parquet(path, {{"text", texts}, {"source", source}});
    EXPECT_THAT(read({path}), ElementsAre("|a", "|b", "|c"));
    EXPECT_THAT(error_of([&] { read({path}, SourceUse::kNeeded); }),
                HasSubstr("column \"source\" is"));
  }
  write_parquet(path, {{"text", texts}, {"source", std::make_shared<arrow::NullArray>(3)}});
  EXPECT_THAT(read({path}, SourceUse::kNeeded), ElementsAre("|a", "|b", "|c"));
}

TEST(ReaderForms, ParquetTextThatIsNoUtf8IsNamedByRow) {
  const Folder folder;
  write_parquet(folder / "a.parquet",
                {{"text", column<arrow::StringBuilder>({"fine", "caf\xe9", "\xe9"})}});
  EXPECT_THAT(warnings_of([&] { EXPECT_EQ(read({folder.path()}).size(), 3u); }),
              HasSubstr("a.parquet: row 2: byte 3: the byte E9 is no UTF-8"));
}

#endif

}  // namespace
}  // namespace halo
