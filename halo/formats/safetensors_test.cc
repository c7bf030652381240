#include "halo/formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "tests/golden_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// A file of a header, padded to 8 bytes, and `data_bytes` of data.
std::string make_file(std::string header, size_t data_bytes) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  return file + header + std::string(data_bytes, '\1');
}

std::string error_of_file(const std::string& file) {
  try {
    parse_safetensors(std::as_bytes(std::span(file)), "f", nullptr);
  } catch (const ParseError& error) {
    return error.what();
  }
  return "no error";
}

std::string error_of(const std::string& header, size_t data_bytes) {
  return error_of_file(make_file(header, data_bytes));
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape,
                     offsets);
}

TEST(SafetensorsAbuse, Header) {
  EXPECT_EQ(error_of("{}", 0), "no error");
  EXPECT_EQ(error_of_file("1234567"), "f: byte 7: too short for a safetensors file");
  EXPECT_EQ(error_of_file(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8)),
            "f: byte 0: header of 100000001 bytes is larger than the 100000000 allowed");
  EXPECT_THAT(error_of_file(std::string(8, '\xff')),
              HasSubstr("larger than the 100000000 allowed"));
  EXPECT_EQ(error_of_file(std::string("\x10\0\0\0\0\0\0\0{}", 10)),
            "f: byte 0: header of 16 bytes reaches beyond the file's 10 bytes");
  EXPECT_EQ(error_of_file(std::string(8, '\0')), "f: byte 8: header does not start with '{'");
  EXPECT_EQ(error_of(" {}", 0), "f: byte 8: header does not start with '{'");
  EXPECT_EQ(error_of("[]", 0), "f: byte 8: header does not start with '{'");
  EXPECT_THAT(error_of_file(std::string("\x03\0\0\0\0\0\0\0{}\0", 11)),
              HasSubstr("f: byte 10: invalid JSON"));
  EXPECT_THAT(error_of("{\"a\":", 0), HasSubstr("invalid JSON"));
  EXPECT_THAT(error_of("{}{}", 0), HasSubstr("f: byte 10: invalid JSON"));
  EXPECT_THAT(error_of("{\"\xff\":1}", 0), HasSubstr("f: byte 10: invalid JSON"));
  EXPECT_THAT(error_of("{\"a\":" + std::string(100'000, '['), 0), HasSubstr("invalid JSON"));
}

TEST(SafetensorsAbuse, DuplicateKeys) {
  const std::string a = entry("a", "U8", "[1]", "[0,1]");
  EXPECT_THAT(error_of("{" + a + "," + a + "}", 1), HasSubstr("duplicate key 'a'"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1),
              HasSubstr("duplicate key 'dtype'"));
  EXPECT_THAT(error_of(R"({"__metadata__":{"k":"1","k":"2"}})", 0), HasSubstr("duplicate key 'k'"));
}

TEST(SafetensorsAbuse, Metadata) {
  EXPECT_EQ(error_of(R"({"__metadata__":{"k":"v"}})", 0), "no error");
  EXPECT_EQ(error_of(R"({"__metadata__":{"k":1}})", 0),
            "f: byte 10: __metadata__ 'k' is not a string");
  EXPECT_THAT(error_of(R"({"__metadata__":[]})", 0), HasSubstr("is not an object"));
}

TEST(SafetensorsAbuse, Names) {
  for (const char* name : {"", "a\\n", "a\\u0000b"})
    EXPECT_THAT(error_of("{" + entry(name, "U8", "[1]", "[0,1]") + "}", 1),
                HasSubstr("name is empty or has a control character"))
        << name;
}

// What the reference reads though few write it.
TEST(Safetensors, ReadsWhatIsUnusualButValid) {
  const std::string a = entry("a", "F32", "[2]", "[0,8]");
  for (const std::string& header : std::vector<std::string>{
           "{" + a + "}\n\t ", "{" + entry("a/b", "F32", "[2]", "[0,8]") + "}",
           "{" + entry("..\\\\x", "F32", "[2]", "[0,8]") + "}", "{\"__metadata__\":null," + a + "}",
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":{"y":1}}})",
           "{" + a + "," + entry("b", "F32", "[0]", "[8,8]") + "}"}) {
    EXPECT_EQ(error_of(header, 8), "no error") << header;
  }
  // Headers of every length: the data then lie anywhere.
  for (size_t padding = 0; padding < 9; ++padding) {
    const std::string header = "{" + a + "}" + std::string(padding, ' ');
    const uint64_t length = header.size();
    const float values[] = {1.5f, -2};
    std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
    file += header + std::string(reinterpret_cast<const char*>(values), sizeof(values));
    const auto tensors = parse_safetensors(std::as_bytes(std::span(file)), "f", nullptr);
    ASSERT_EQ(tensors.size(), 1u);
    ASSERT_EQ(tensors[0].bytes.size(), sizeof(values));
    EXPECT_EQ(std::memcmp(tensors[0].bytes.data(), values, sizeof(values)), 0) << padding;
    EXPECT_THAT(error_of_file(file.substr(0, file.size() - 4)), HasSubstr("beyond the file's"));
  }
}

TEST(SafetensorsAbuse, Entries) {
  const auto one = [](const std::string& dtype, const std::string& shape,
                      const std::string& offsets) {
    return error_of("{" + entry("a", dtype, shape, offsets) + "}", 8);
  };
  EXPECT_EQ(one("F32", "[2]", "[0,8]"), "no error");
  EXPECT_EQ(error_of(R"({"a":3})", 0), "f: byte 9: tensor \"a\": its entry is not an object");
  EXPECT_THAT(error_of(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1),
              HasSubstr("dtype is missing or no string"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1),
              HasSubstr("shape is missing or no array"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"U8","shape":[1]}})", 1),
              HasSubstr("data_offsets is missing"));
  EXPECT_THAT(one("F8_E4M3", "[8]", "[0,8]"), HasSubstr("unknown type \"F8_E4M3\"; known are F64"));
  EXPECT_THAT(one("f32", "[2]", "[0,8]"), HasSubstr("unknown type"));
  for (const char* shape : {"[-1]", "[1.0]", "[\"2\"]", "[null]", "[9223372036854775808]", "[1e3]"})
    EXPECT_THAT(one("F32", shape, "[0,8]"), HasSubstr("expected integers from 0 to 2^63 - 1"))
        << shape;
  EXPECT_THAT(one("F32", "[4294967296,4294967296]", "[0,8]"), HasSubstr("overflows 64 bits"));
  // 2^62 + 2 elements of 4 bytes: 8 modulo 2^64.
  EXPECT_THAT(one("F32", "[4611686018427387906]", "[0,8]"), HasSubstr("overflows 64 bits"));
  EXPECT_THAT(one("F32", "[3]", "[0,8]"),
              HasSubstr("shape and type need 12 bytes, data_offsets hold 8"));
  for (const char* offsets :
       {"[0]", "[0,8,9]", "[-8,0]", "[0.0,8]", "8", "[0,18446744073709551615]"})
    EXPECT_THAT(one("F32", "[2]", offsets), HasSubstr("data_offsets is missing or not a pair"))
        << offsets;
  EXPECT_THAT(one("F32", "[2]", "[8,0]"), HasSubstr("run backwards"));
  EXPECT_THAT(one("F32", "[4]", "[0,16]"),
              HasSubstr("data_offsets end at 16, beyond the file's 8 bytes of data"));
}

TEST(SafetensorsAbuse, Coverage) {
  const std::string a = entry("a", "U8", "[4]", "[0,4]");
  EXPECT_EQ(error_of("{" + entry("b", "U8", "[4]", "[4,8]") + "," + a + "}", 8), "no error");
  EXPECT_THAT(error_of("{" + a + "," + entry("b", "U8", "[4]", "[3,7]") + "}", 7),
              HasSubstr("tensor \"b\": overlaps the data of tensor \"a\""));
  EXPECT_THAT(error_of("{" + a + "," + entry("b", "U8", "[4]", "[0,4]") + "}", 4),
              HasSubstr("overlaps"));
  EXPECT_THAT(error_of("{" + a + "," + entry("b", "U8", "[3]", "[5,8]") + "}", 8),
              HasSubstr("tensor \"b\": leaves a hole: data bytes 4 to 5 belong to no tensor"));
  EXPECT_THAT(error_of("{" + entry("a", "U8", "[4]", "[1,5]") + "}", 5), HasSubstr("a hole"));
  EXPECT_THAT(error_of("{" + a + "}", 7), HasSubstr("3 trailing bytes belong to no tensor"));
  EXPECT_THAT(error_of("{}", 1), HasSubstr("byte 16: 1 trailing bytes"));
}

// Every prefix of a file, and every file with one byte changed, is read or refused with a
// ParseError.
TEST(SafetensorsAbuse, TruncatedAndChangedFiles) {
  const std::string file = make_file(
      "{" + entry("a", "F32", "[2]", "[0,8]") + "," + entry("b", "BF16", "[1,2]", "[8,12]") + "}",
      12);
  ASSERT_EQ(error_of_file(file), "no error");
  for (size_t size = 0; size < file.size(); ++size)
    EXPECT_NE(error_of_file(file.substr(0, size)), "no error") << size;
  for (size_t at = 0; at < file.size(); ++at)
    for (const char byte : {'\0', '\xff', '"', '9', '{', ']'}) {
      std::string changed = file;
      changed[at] = byte;
      error_of_file(changed);
    }
}

TEST(Safetensors, ScalarsAndEmptyTensors) {
  const std::string file =
      make_file("{" + entry("s", "F32", "[]", "[0,4]") + "," + entry("e", "F32", "[3,0]", "[4,4]") +
                    "," + entry("f", "F32", "[0]", "[0,0]") + "}",
                4);
  const auto tensors = parse_safetensors(std::as_bytes(std::span(file)), "f", nullptr);
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0].name, "f");
  EXPECT_EQ(tensors[1].numel(), 1);
  EXPECT_EQ(tensors[2].numel(), 0);
}

class SafetensorsFiles : public testing::Test {
 protected:
  // A file of one-element U8 tensors.
  void write_shard(const std::string& file, const std::vector<std::string>& names) {
    static const std::byte byte{7};
    std::vector<TensorView> tensors;
    for (const std::string& name : names)
      tensors.push_back({name, DType::kU8, {1}, std::span(&byte, 1)});
    write_safetensors(folder_ / file, tensors);
  }
  void write_index(const json::object& map) {
    write_json(folder_ / "model.safetensors.index.json",
               json::object{{"metadata", json::object{{"total_size", 3}}}, {"weight_map", map}});
  }
  std::string open_error() {
    try {
      WeightFiles files(folder_.path());
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  const test::Folder folder_;
};

TEST_F(SafetensorsFiles, WriteThenRead) {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  const std::vector<uint16_t> b = {0x3f80};
  const std::vector<TensorView> tensors = {
      {"z", DType::kF32, {2, 3}, std::as_bytes(std::span(a))},
      {"a \"quoted\" \xc3\xa9", DType::kBF16, {1, 1}, std::as_bytes(std::span(b))}};
  write_safetensors(folder_ / "f.safetensors", tensors, {{"step", "3"}});
  const SafetensorsFile file(folder_ / "f.safetensors");
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"step", "3"}}));
  EXPECT_EQ(file.tensors()[0].name, "z");
  EXPECT_EQ(file.get("z").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(file.get("z").bytes.data(), a.data(), 24), 0);
  EXPECT_EQ(file.get(tensors[1].name).dtype, DType::kBF16);
  EXPECT_EQ(file.find("absent"), nullptr);
  EXPECT_THROW(file.get("absent"), Error);
}

TEST_F(SafetensorsFiles, WriterRefuses) {
  const std::byte byte{};
  const TensorView good{"a", DType::kU8, {1}, std::span(&byte, 1)};
  TensorView wrong_size = good, bad_name = good;
  wrong_size.shape = {2};
  bad_name.name = "a\nb";
  const fs::path path = folder_ / "f";
  EXPECT_THROW(write_safetensors(path, std::vector{wrong_size}), Error);
  EXPECT_THROW(write_safetensors(path, std::vector{bad_name}), Error);
  EXPECT_THROW(write_safetensors(path, std::vector{good, good}), Error);
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(SafetensorsFiles, ReadsShards) {
  write_shard("m-1.safetensors", {"c", "a"});
  write_shard("m-2.safetensors", {"b"});
  write_index({{"a", "m-1.safetensors"}, {"b", "m-2.safetensors"}, {"c", "m-1.safetensors"}});
  const WeightFiles files(folder_.path());
  const auto tensors = files.tensors();
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[2].name, "c");
  ASSERT_NE(files.find("b"), nullptr);
  EXPECT_EQ(files.find("d"), nullptr);
}

TEST_F(SafetensorsFiles, ChecksTheIndexBothWays) {
  EXPECT_THAT(open_error(), HasSubstr("holds no weights"));
  write_shard("m-1.safetensors", {"a"});
  write_shard("m-2.safetensors", {"b"});
  write_index({{"a", "m-1.safetensors"}});
  EXPECT_EQ(open_error(), "no error");
  write_index({{"a", "m-1.safetensors"}, {"c", "m-2.safetensors"}});
  EXPECT_THAT(open_error(), HasSubstr("tensor 'b' of m-2.safetensors is not listed"));
  write_index({{"a", "m-1.safetensors"}, {"b", "m-2.safetensors"}, {"c", "m-1.safetensors"}});
  EXPECT_THAT(open_error(), HasSubstr("'c' is listed in m-1.safetensors but not found there"));
  write_index({{"a", "m-2.safetensors"}, {"b", "m-1.safetensors"}});
  EXPECT_THAT(open_error(), HasSubstr("but also found in"));
  write_index({{"a", "m-3.safetensors"}});
  EXPECT_THAT(open_error(), HasSubstr("cannot open"));
  for (const char* shard : {"../m-1.safetensors", "/etc/passwd", "m-1.bin"}) {
    write_index({{"a", shard}});
    EXPECT_THAT(open_error(), HasSubstr("expected a .safetensors file of the same folder"));
  }
}

TEST(SafetensorsGolden, ReadsEveryFile) {
  for (const fs::path& root : test::golden_roots()) {
    int count = 0;
    for (const auto& item : fs::recursive_directory_iterator(root)) {
      if (item.path().extension() != ".safetensors") continue;
      EXPECT_FALSE(SafetensorsFile(item.path()).tensors().empty()) << item.path();
      ++count;
    }
    EXPECT_GT(count, 20) << root;
  }
}

}  // namespace
}  // namespace halo
