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
  const auto found = inspect_shard(path, &reader, "feed");
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
  EXPECT_THAT(error_of([&] { inspect_shard(path, &reader, "other"); }), HasSubstr("other"));
  EXPECT_FALSE(inspect_shard(path, nullptr, "").contains("first"));
}

}  // namespace
}  // namespace halo
