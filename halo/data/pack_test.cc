#include "halo/data/pack.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include <numeric>

#include "halo/data/shard_testing.h"

namespace halo {
namespace {

using test::error_of;
using test::Folder;
using test::tokenizer;
using test::tokenizer_json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// The documents of the shards of a folder, as text.
std::vector<std::string> unpack(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& item : std::filesystem::directory_iterator(folder)) paths.push_back(item.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> documents;
  for (const auto& path : paths) {
    const TokenShard shard(path);
    for (int64_t d = 0; d < shard.num_documents(); ++d) {
      std::vector<int64_t> ids(shard.document_end(d) - shard.document_begin(d));
      shard.copy_tokens(shard.document_begin(d), shard.document_end(d), ids.data());
      documents.push_back(tokenizer().decode(ids));
    }
  }
  return documents;
}

class Pack : public testing::Test {
 protected:
  Pack() { write_file(folder_ / "tokenizer.json", tokenizer_json()); }
  PackCounts run(const std::string& output, const PackOptions& options = {}) {
    return pack({folder_ / "in.jsonl"}, folder_ / "tokenizer.json", folder_ / output, options);
  }
  void input(const std::vector<std::pair<std::string, std::string>>& documents) {
    std::string lines;
    for (const auto& [source, text] : documents) {
      lines += json::serialize(json::object{{"text", text}, {"source", source}}) + "\n";
    }
    write_file(folder_ / "in.jsonl", lines);
  }
  Folder folder_;
};

TEST_F(Pack, ClosesEveryDocumentAndKeepsTheOrder) {
  std::vector<std::pair<std::string, std::string>> documents;
  std::vector<std::string> expected;
  size_t bytes = 0;
  for (int i = 0; i < 100; ++i) {
    const auto text = i == 40 ? "" : fmt::format("the rain in {} plains", i);
    documents.emplace_back("", text);
    bytes += text.size();
    if (!text.empty()) expected.push_back(text + "<|endoftext|>");
  }
  input(documents);
  PackOptions options;
  options.shard_tokens = 200;
  const auto counts = run("out", options);
  EXPECT_EQ(unpack(folder_ / "out"), expected);
  EXPECT_EQ(counts.documents_read, 100);
  EXPECT_EQ(counts.documents_empty, 1);
  EXPECT_EQ(counts.documents, 99);
  EXPECT_EQ(counts.bytes, bytes);
  EXPECT_GT(counts.shards, 2);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.tmp"));

  const TokenShard shard(folder_ / "out" / "shard-00000.halotok");
  EXPECT_EQ(shard.header().tokenizer_hash, hash_file(folder_ / "tokenizer.json"));
  EXPECT_EQ(shard.header().vocab_size, tokenizer().vocab_size());
  EXPECT_THAT(shard.header().provenance, HasSubstr(hash_file(folder_ / "in.jsonl")));
  EXPECT_THAT(error_of([&] { run("out"); }), HasSubstr("out"));
}

TEST_F(Pack, WritesTheSameBytesOnAnyNumberOfThreads) {
  std::vector<std::pair<std::string, std::string>> documents;
  for (int i = 0; i < 200; ++i) {
    std::string text = fmt::format("document {}:", i);
    for (int word = 0; word < i % 50; ++word) text += fmt::format(" rain{}", i * word % 97);
    documents.emplace_back("", text);
  }
  input(documents);
  PackOptions options;
  options.shard_tokens = 2'000;
  const int threads = at::get_num_threads();
  std::vector<std::string> hashes;
  for (const int count : {1, 2, 5}) {
    at::set_num_threads(count);
    const std::string output = fmt::format("out-{}", count);
    const auto counts = run(output, options);
    EXPECT_GT(counts.shards, 2);
    std::string all;
    for (int shard = 0; shard < counts.shards; ++shard)
      all += hash_file(folder_ / output / fmt::format("shard-{:05}.halotok", shard));
    hashes.push_back(all);
  }
  at::set_num_threads(threads);
  EXPECT_EQ(hashes[1], hashes[0]);
  EXPECT_EQ(hashes[2], hashes[0]);
}

TEST_F(Pack, JoinsWorksInNaturalOrder) {
  input({{"b:ch-10", "ten"},
         {"a:x", "other"},
         {"", "loose"},
         {"b:ch-9", "nine"},
         {"b:ch-009-b", "nine b"},
         {"", "free"},
         {"b:ch-1", "one"},
         {"a:w", "first"},
         {"c", "no part"}});
  PackOptions options;
  options.join_sources = true;
  const auto counts = run("out", options);
  EXPECT_THAT(
      unpack(folder_ / "out"),
      ElementsAre("one\n\nnine\n\nnine b\n\nten<|endoftext|>", "first\n\nother<|endoftext|>",
                  "loose<|endoftext|>", "free<|endoftext|>", "no part<|endoftext|>"));
  EXPECT_EQ(counts.documents_read, 9);
  EXPECT_EQ(counts.documents, 5);
}

TEST_F(Pack, BeginsDocumentsWhereTheTokenizerAsks) {
  input({{"", "rain"}});
  write_file(folder_ / "tokenizer_config.json",
             R"({"add_bos_token": true, "bos_token": {"content": "<|im_start|>"}})");
  run("out");
  EXPECT_THAT(unpack(folder_ / "out"), ElementsAre("<|im_start|>rain<|endoftext|>"));
  write_file(folder_ / "tokenizer_config.json", R"({"add_bos_token": false, "bos_token": null})");
  run("without");
  EXPECT_THAT(unpack(folder_ / "without"), ElementsAre("rain<|endoftext|>"));
  write_file(folder_ / "tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<s>"})");
  EXPECT_THAT(error_of([&] { run("third"); }), HasSubstr("<s>"));
}

TEST_F(Pack, BeginsDocumentsAsThePostProcessorDoes) {
  input({{"", "rain"}});
  json::value file = parse_json(tokenizer_json(), "test");
  file.as_object()["post_processor"] = parse_json(
      R"({"type": "TemplateProcessing",
          "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}],
          "special_tokens": {"x": {"ids": [289]}}})",
      "test");
  write_file(folder_ / "tokenizer.json", json::serialize(file));
  run("out");
  EXPECT_THAT(unpack(folder_ / "out"), ElementsAre("<|im_start|>rain<|endoftext|>"));
  write_file(folder_ / "tokenizer_config.json", R"({"bos_token": "<|im_start|>"})");
  run("same");
  EXPECT_THAT(unpack(folder_ / "same"), ElementsAre("<|im_start|>rain<|endoftext|>"));
  write_file(folder_ / "tokenizer_config.json", R"({"add_bos_token": false})");
  run("without");
  EXPECT_THAT(unpack(folder_ / "without"), ElementsAre("rain<|endoftext|>"));
}

TEST_F(Pack, LeavesNothingAfterAnError) {
  write_file(folder_ / "in.jsonl", "{\"text\": \"fine\"}\nbroken\n");
  EXPECT_THAT(error_of([&] { run("out"); }), HasSubstr("line 2"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.tmp"));
  input({{"", ""}});
  EXPECT_THAT(error_of([&] { run("out"); }), HasSubstr("no documents"));
}

TEST_F(Pack, InspectTellsWhatIsInside) {
  const auto path = folder_ / "a.halotok";
  const std::vector<int64_t> rain = tokenizer().encode("rain");
  TokenShardWriter writer(path, "feed", tokenizer().vocab_size(), "{}");
  writer.add_document(rain);
  writer.add_document(std::vector<int64_t>(5, rain[0]), std::vector<uint8_t>{0, 2, 0, 1, 0});
  writer.add_document(std::vector<int64_t>(12, rain[0]));
  writer.finish();
  const Tokenizer& reader = tokenizer();
  const auto found = inspect_shards(path, &reader, "feed");
  EXPECT_EQ(found.at("documents"), 3);
  EXPECT_EQ(found.at("tokens"), static_cast<int64_t>(rain.size()) + 17);
  EXPECT_EQ(found.at("needle_documents"), 1);
  const json::object& lengths = found.at("lengths").as_object();
  EXPECT_EQ(lengths.at("median"), 5);
  EXPECT_EQ(lengths.at("max"), 12);
  int64_t documents = 0;
  for (const auto& bar : lengths.at("histogram").as_array()) {
    documents += bar.as_object().at("documents").as_int64();
  }
  EXPECT_EQ(documents, 3);
  EXPECT_TRUE(std::string_view(found.at("first").as_string()).starts_with("rain"));
  EXPECT_THAT(error_of([&] { inspect_shards(path, &reader, "other"); }), HasSubstr("other"));
  EXPECT_FALSE(inspect_shards(path, nullptr, "").contains("first"));
}

TEST_F(Pack, InspectTellsWhatIsInAFolder) {
  const auto folder = folder_ / "shards";
  std::filesystem::create_directory(folder);
  const std::vector<int64_t> rain = tokenizer().encode("rain"), plain = tokenizer().encode("plain");
  const auto write = [&](const char* name, const std::string& hash, const auto& first, int64_t n) {
    TokenShardWriter writer(folder / name, hash, tokenizer().vocab_size(), "{}");
    writer.add_document(first);
    writer.add_document(std::vector<int64_t>(n, rain[0]), std::vector<uint8_t>(n, 2));
    writer.finish();
  };
  write("b.halotok", "feed", plain, 3);
  write("a.halotok", "feed", rain, 30);
  const Tokenizer& reader = tokenizer();
  const auto tokens = static_cast<int64_t>(rain.size() + plain.size()) + 33;
  for (const auto& name : {folder, folder / "*.halotok"}) {
    const json::object found = inspect_shards(name, &reader, "feed");
    EXPECT_EQ(found.at("path").as_string(), name.string());
    EXPECT_EQ(found.at("tokenizer_hash").as_string(), "feed");
    EXPECT_EQ(found.at("documents"), 4);
    EXPECT_EQ(found.at("tokens"), tokens);
    EXPECT_EQ(found.at("needle_documents"), 2);
    EXPECT_EQ(found.at("lengths").at("max"), 30);
    EXPECT_TRUE(std::string_view(found.at("first").as_string()).starts_with("rain"));
    const json::array& shards = found.at("shards").as_array();
    ASSERT_EQ(shards.size(), 2u);
    EXPECT_EQ(shards[0].at("path").as_string(), (folder / "a.halotok").string());
    EXPECT_EQ(shards[0].at("lengths").at("max"), 30);
    EXPECT_EQ(shards[1].at("lengths").at("max"),
              static_cast<int64_t>(std::max<size_t>(3, plain.size())));
  }
  EXPECT_THAT(error_of([&] { inspect_shards(folder, &reader, "other"); }), HasSubstr("other"));
  write("c.halotok", "food", rain, 3);
  EXPECT_THAT(error_of([&] { inspect_shards(folder, nullptr, ""); }),
              AllOf(HasSubstr("several tokenizers"), HasSubstr("c.halotok")));
  EXPECT_THAT(error_of([&] { inspect_shards(folder_ / "none", nullptr, ""); }),
              HasSubstr("no token shard there"));
}

TEST_F(Pack, CountsFilesAndTakesNulls) {
  const auto folder = folder_ / "corpus";
  std::filesystem::create_directory(folder);
  write_file(folder / "a.jsonl", "{\"text\": \"rain\"}\n{\"text\": null}\n{\"text\": \"\"}\n");
  write_file(folder / "b.ndjson", "{\"text\": \"plain\", \"source\": 5}\n");
  write_file(folder / "c.csv", "rain");
  testing::internal::CaptureStderr();
  const PackCounts counts = pack({folder}, folder_ / "tokenizer.json", folder_ / "out", {});
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("c.csv"));
  EXPECT_EQ(counts.files, 2);
  EXPECT_EQ(counts.files_skipped, 1);
  EXPECT_EQ(counts.documents_read, 4);
  EXPECT_EQ(counts.documents_empty, 2);
  EXPECT_EQ(counts_to_json(counts).at("files_skipped"), 1);
  EXPECT_THAT(unpack(folder_ / "out"), ElementsAre("rain<|endoftext|>", "plain<|endoftext|>"));
  EXPECT_THAT(error_of([&] {
                pack({folder / "b.ndjson"}, folder_ / "tokenizer.json", folder_ / "joined",
                     {.join_sources = true});
              }),
              HasSubstr("'source'"));
}

}  // namespace
}  // namespace halo
