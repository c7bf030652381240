#include "halo/formats/token_shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class TokenShards : public testing::Test {
 protected:
  void write(int64_t vocab_size, bool marks) {
    TokenShardWriter writer(path_, "hash", vocab_size, R"({"command":"x"})");
    writer.add_document(std::vector<int64_t>{1, 2, vocab_size - 1});
    const std::vector<uint8_t> second = {0, 1, 2, 0};
    writer.add_document(std::vector<int64_t>{4, 5, 6, 7},
                        marks ? std::span<const uint8_t>(second) : std::span<const uint8_t>());
    writer.add_document(std::vector<int64_t>{8});
    writer.finish();
  }
  std::string error_of(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    try {
      TokenShard shard(path_);
    } catch (const ParseError& error) {
      return error.what();
    } catch (const Error& error) {
      return std::string("Error: ") + error.what();
    }
    return "no error";
  }
  // The file with one key of its header changed; its bytes keep their places.
  std::string with_header(const std::string& key, json::value value) {
    const std::string bytes = read_file(path_);
    const uint32_t length = static_cast<uint8_t>(bytes[8]) | static_cast<uint8_t>(bytes[9]) << 8;
    json::object header = parse_json(std::string_view(bytes).substr(12, length), "f").as_object();
    header["provenance"] = "";  // room for the new value
    header[key] = std::move(value);
    std::string text = json::serialize(header);
    EXPECT_LE(text.size(), length);
    text.resize(length, ' ');
    return bytes.substr(0, 12) + text + bytes.substr(12 + length);
  }

  const test::Folder folder_;
  const fs::path path_ = folder_ / "s.shard";
};

TEST_F(TokenShards, WriteThenRead) {
  for (const int64_t vocab_size : {2000, 65536, 65537, 151936}) {
    for (const bool marks : {false, true}) {
      write(vocab_size, marks);
      const TokenShard shard(path_);
      EXPECT_EQ(shard.header().tokenizer_hash, "hash");
      EXPECT_EQ(shard.header().vocab_size, vocab_size);
      EXPECT_EQ(shard.header().num_tokens, 8);
      EXPECT_EQ(shard.header().provenance, R"({"command":"x"})");
      ASSERT_EQ(shard.num_documents(), 3);
      EXPECT_EQ(shard.document_begin(1), 3);
      EXPECT_EQ(shard.document_end(1), 7);
      EXPECT_EQ(shard.token(2), vocab_size - 1);
      std::vector<int64_t> tokens(4);
      shard.copy_tokens(3, 7, tokens.data());
      EXPECT_EQ(tokens, (std::vector<int64_t>{4, 5, 6, 7}));
      EXPECT_EQ(shard.has_marks(), marks);
      std::vector<uint8_t> copied(8, 9);
      shard.copy_marks(0, 8, copied.data());
      EXPECT_EQ(copied, marks ? (std::vector<uint8_t>{0, 0, 0, 0, 1, 2, 0, 0})
                              : std::vector<uint8_t>(8, 0));
      EXPECT_THROW(shard.token(8), Error);
      EXPECT_THROW(shard.document_end(3), Error);
      EXPECT_EQ(fs::file_size(path_) % 8, 0u);
    }
  }
}

TEST_F(TokenShards, NothingIsLeftWithoutFinish) {
  {
    TokenShardWriter writer(path_, "h", 10, "{}");
    writer.add_document(std::vector<int64_t>{1});
    EXPECT_THROW(writer.add_document(std::vector<int64_t>{10}), Error);
    EXPECT_THROW(writer.add_document({}), Error);
  }
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(TokenShards, RefusesDamage) {
  write(2000, true);
  const std::string bytes = read_file(path_);
  ASSERT_EQ(error_of(bytes), "no error");
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_NE(error_of(bytes.substr(0, size)), "no error") << size;
  EXPECT_THAT(error_of(bytes.substr(0, bytes.size() - 1)), HasSubstr("truncated"));
  EXPECT_THAT(error_of(bytes + "x"), HasSubstr("1 trailing bytes"));
  EXPECT_THAT(error_of("HALOTOK2" + bytes.substr(8)), HasSubstr("byte 0: not a token shard"));
  EXPECT_THAT(error_of("HALOTOK1\xff\xff\xff\x7f" + bytes.substr(12)),
              HasSubstr("byte 8: header of"));
  std::string changed = bytes;
  changed[bytes.size() - 8 - 24 - 16] ^= 1;  // a token
  EXPECT_THAT(error_of(changed), HasSubstr("damaged"));
  changed = bytes;
  changed[bytes.size() - 8 - 24] = 100;  // the first document's end
  EXPECT_THAT(error_of(changed), HasSubstr("document 0 ends at token 100"));
  changed[bytes.size() - 8 - 24] = 0;
  EXPECT_THAT(error_of(changed), HasSubstr("document 0 ends at token 0"));
}

TEST_F(TokenShards, RefusesWrongCounts) {
  write(2000, false);
  const auto error = [&](const char* key, json::value value) {
    write(2000, false);
    return error_of(with_header(key, std::move(value)));
  };
  EXPECT_THAT(error("num_tokens", 9), HasSubstr("truncated"));
  EXPECT_THAT(error("num_tokens", 4), HasSubstr("trailing bytes"));
  EXPECT_THAT(error("num_tokens", -1), HasSubstr("'num_tokens' is -1 in a file of"));
  EXPECT_THAT(error("num_tokens", 1e3), HasSubstr("must be a 64-bit integer"));
  EXPECT_THAT(error("num_documents", 4), HasSubstr("truncated"));
  EXPECT_THAT(error("num_documents", int64_t{1} << 60), HasSubstr("'num_documents' is"));
  EXPECT_THAT(error("vocab_size", 0), HasSubstr("'vocab_size' is 0"));
  EXPECT_THAT(error("has_marks", true), HasSubstr("truncated"));
}

// The hash guards against damage; a header that lies about the vocabulary meets the range check.
TEST_F(TokenShards, TokensBeyondTheVocabularyAreRefused) {
  write(2000, false);
  ASSERT_EQ(error_of(with_header("vocab_size", 100)), "no error");
  EXPECT_THROW(TokenShard(path_).token(2), ParseError);
}

}  // namespace
}  // namespace halo
