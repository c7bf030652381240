#include "halo/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/json.h"
#include "tests/testing.h"

namespace halo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int64_t>;

// Ids 0..255 are the bytes.
json::value small_json() {
  static const std::string text =
      train_bpe({"the theme of the thesis then, more words", "aaaa", "aaaa", "aaaa", "aaaa"}, 272,
                {"<|endoftext|>", "<|end|>"});
  return parse_json(text, "small");
}

Tokenizer make(const json::value& value) {
  return Tokenizer(json::serialize(value), "t.json");
}
Tokenizer small() {
  return make(small_json());
}

std::string repeat(const std::string& unit, size_t bytes) {
  std::string out;
  while (out.size() < bytes) out += unit;
  return out;
}

std::string round_trip(const Tokenizer& tokenizer, const std::string& text) {
  return tokenizer.decode(tokenizer.encode(text));
}

TEST(Tokenizer, MergesByRankThenFromTheLeft) {
  json::value value = small_json();
  json::object& model = value.at("model").as_object();
  model["vocab"].as_object()["ab"] = 300;
  model["vocab"].as_object()["bc"] = 301;
  model["vocab"].as_object()["aa"] = 302;
  model["vocab"].as_object()["aaaa"] = 303;
  model["merges"] = {"b c", json::array{"a", "b"}, "a a", "aa aa"};  // both forms
  for (const char* token : {"ab", "bc", "aa", "aaaa"})
    ASSERT_TRUE(make(value).token_id(token)) << token;
  const Tokenizer tokenizer = make(value);
  EXPECT_THAT(tokenizer.encode("abc"), ElementsAre('a', 301));
  EXPECT_THAT(tokenizer.encode("abab"), ElementsAre(300, 300));
  EXPECT_THAT(tokenizer.encode("aaaaaaa"), ElementsAre(303, 302, 'a'));
  EXPECT_THAT(tokenizer.encode("aaab"), ElementsAre(302, 300));
}

TEST(Tokenizer, IgnoreMergesTakesWholePiecesFirst) {
  json::value value = small_json();
  json::object& model = value.at("model").as_object();
  model["vocab"].as_object()["xyz"] = 300;
  EXPECT_THAT(make(value).encode("xyz"), ElementsAre('x', 'y', 'z'));
  model["ignore_merges"] = true;
  EXPECT_THAT(make(value).encode("xyz xyz"), ElementsAre(300, ' ', 'x', 'y', 'z'));
}

TEST(Tokenizer, AddedTokensLeftmostThenLongest) {
  const Tokenizer tokenizer = small();
  const int64_t document_end = *tokenizer.token_id("<|endoftext|>");
  const int64_t end = *tokenizer.token_id("<|end|>");
  EXPECT_EQ(document_end, 270);
  EXPECT_EQ(end, 271);
  EXPECT_EQ(tokenizer.vocab_size(), 272);
  EXPECT_TRUE(tokenizer.is_special(end));
  EXPECT_FALSE(tokenizer.is_special('a'));
  EXPECT_THAT(tokenizer.encode("x<|endoftext|><|end|>x<|end"),
              ElementsAre('x', document_end, end, 'x', '<', '|', 'e', 'n', 'd'));
  EXPECT_EQ(tokenizer.decode(Ids{'x', end, 'y'}), "x<|end|>y");
  EXPECT_EQ(tokenizer.decode(Ids{'x', end, 'y'}, true), "xy");

  json::value value = small_json();
  value.at("added_tokens").as_array()[1].as_object()["content"] = "<|endoftext|>xyz";
  EXPECT_THAT(make(value).encode("<|endoftext|>xy<|endoftext|>xyz"),
              ElementsAre(document_end, 'x', 'y', end));
}

TEST(Tokenizer, NormalizedAddedTokensAreFoundAfterNfc) {
  json::value value = small_json();
  json::object& token = value.at("added_tokens").as_array()[1].as_object();
  token["content"] = "\u00E9!";
  EXPECT_EQ(make(value).encode("e\u0301!").size(), 3);
  token["normalized"] = true;
  EXPECT_THAT(make(value).encode("e\u0301!"), ElementsAre(271));
}

TEST(Tokenizer, TextComesBackInFormC) {
  const Tokenizer tokenizer = small();
  const std::pair<std::string, std::string> cases[] = {
      {"", ""},
      {"plain, the ~ text", "plain, the ~ text"},
      {"e\u0301 \u00E9", "\u00E9 \u00E9"},
      {"q\u0307\u0323", "q\u0323\u0307"},  // marks in order of class
      {"\u1100\u1161\u11A8", "\uAC01"},    // jamo
      {"\uAC00\u11A7", "\uAC00\u11A7"},    // no final jamo
      {"\u0958", "\u0915\u093C"},          // excluded from composition
      {"\u212B\u2126", "\u00C5\u03A9"},    // singletons
      {"x\u0338 >\u0338", "x\u0338 \u226F"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(round_trip(tokenizer, text), expected);
}

TEST(Tokenizer, BytesThatAreNoUtf8) {
  const std::string r = "\uFFFD";
  const std::pair<std::string, std::string> cases[] = {
      {"a\xF0\x90\x80World", "a" + r + "World"},
      {"\xC0\x80", r + r},
      {"\xED\xA0\x80", r + r + r},
      {"\xF4\x90\x80\x80", r + r + r + r},
      {"\xE0\x80\x80", r + r + r},
      {"\xE2\x82", r},
      {"\xF0\x9F\x98", r},
      {"\xC3(", r + "("},
      {"\xF5\xFF", r + r},
      {"\xE2\x82\xE2\x82\xAC", r + "\u20AC"},
  };
  const Tokenizer tokenizer = small();
  for (const auto& [bytes, expected] : cases) {
    EXPECT_EQ(round_trip(tokenizer, bytes), expected);
    Ids ids;
    StreamDecoder stream(tokenizer);
    std::string streamed;
    for (const unsigned char byte : bytes) {
      ids.push_back(byte);
      streamed += stream.push(byte);
    }
    EXPECT_EQ(tokenizer.decode(ids), expected);
    EXPECT_EQ(streamed + stream.finish(), expected);
  }
}

TEST(Tokenizer, UnknownIdsAreDropped) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.decode(Ids{'a', -1, 5000, 'b'}), "ab");
  EXPECT_EQ(tokenizer.token_bytes(5000), "");
  EXPECT_EQ(tokenizer.token_bytes(0xE9), "\xE9");
  EXPECT_EQ(tokenizer.token_bytes(*tokenizer.token_id("\u0120the")), " the");
}

TEST(Tokenizer, BytesWithoutTokenAreDropped) {
  json::value value = small_json();
  json::object& model = value.at("model").as_object();
  model["merges"] = json::array{};
  model["vocab"].as_object().erase("y");
  EXPECT_THAT(make(value).encode("xyz"), ElementsAre('x', 'z'));
}

TEST(Tokenizer, DocumentEnd) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.document_end(), 270);
  EXPECT_EQ(tokenizer.document_end("<|end|>"), 271);
  EXPECT_THROW(tokenizer.document_end("<eos>"), Error);
  json::value value = small_json();
  value.at("added_tokens").as_array().clear();
  EXPECT_THROW(make(value).document_end(), Error);
}

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  const Tokenizer tokenizer = small();
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.push(0x82), "");
  EXPECT_EQ(stream.push(270), "");  // special: skipped
  EXPECT_EQ(stream.push(0xAC), "\u20AC");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.push('b'), "\uFFFDb");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
  StreamDecoder with_special(tokenizer, false);
  EXPECT_EQ(with_special.push(270), "<|endoftext|>");
}

// Runs `work` on a thread with 128 KiB of stack, for which a recursion once a byte is too deep.
void with_small_stack(std::function<void()> work) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, size_t{128} << 10);
  pthread_t thread;
  const auto run = [](void* f) -> void* {
    (*static_cast<std::function<void()>*>(f))();
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, run, &work), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

// Quadratic merging or sorting of marks would need hours.
void encode_long_pieces() {
  constexpr size_t kBytes = size_t{4} << 20;
  const Tokenizer tokenizer = small();
  ASSERT_TRUE(tokenizer.token_id("aaaa"));
  ASSERT_FALSE(tokenizer.token_id("aaaaa"));
  EXPECT_EQ(tokenizer.encode(repeat("a", kBytes)).size(), kBytes / 4);
  EXPECT_EQ(tokenizer.encode(repeat("7", kBytes)).size(), kBytes);
  EXPECT_EQ(tokenizer.encode(std::string(kBytes, '\xFF')).size(), 3 * kBytes);
  EXPECT_EQ(tokenizer.encode(repeat("<|end", kBytes)).size(), repeat("<|end", kBytes).size());
  const std::string marks = repeat("\u0301\u0323", kBytes / 4);
  EXPECT_EQ(round_trip(tokenizer, marks),
            repeat("\u0323", kBytes / 8) + repeat("\u0301", kBytes / 8));
}

TEST(Tokenizer, LongPiecesTakeNearLinearTimeAndLittleStack) {
  small_json();  // trained on this thread
  with_small_stack(encode_long_pieces);
}

TEST(Tokenizer, EncodesFromManyThreads) {
  const Tokenizer tokenizer = small();
  std::string text;
  for (int i = 0; i < 20'000; ++i)
    text += " the" + std::to_string(i) + "me" + std::string(i % 7, 'a');
  const Ids expected = small().encode(text);
  std::vector<Ids> results(4);
  {
    std::vector<std::jthread> threads;
    for (Ids& result : results) threads.emplace_back([&] { result = tokenizer.encode(text); });
  }
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

// TemplateProcessing of pieces that are sequences, if of one character, or special tokens.
json::value template_of(const std::vector<std::string>& pieces) {
  json::array single;
  for (const std::string& piece : pieces) {
    const char* kind = piece.size() == 1 ? "Sequence" : "SpecialToken";
    single.push_back(json::object{{kind, {{"id", piece}, {"type_id", 0}}}});
  }
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"special_tokens", {{"<|end|>", {{"id", "<|end|>"}, {"ids", {271, 270}}}}}}};
}

json::value many_steps(const char* type, const char* list) {
  json::array steps;
  for (int i = 0; i < 40; ++i) steps.push_back(json::object{{"type", type}});
  return {{"type", "Sequence"}, {list, steps}};
}

TEST(Tokenizer, AddsTheTokensOfItsTemplate) {
  json::value value = small_json();
  value.as_object()["post_processor"] = json::object{
      {"type", "Sequence"},
      {"processors",
       {json::object{{"type", "ByteLevel"}}, template_of({"<|end|>", "A", "<|end|>"})}}};
  const Tokenizer tokenizer = make(value);
  EXPECT_THAT(tokenizer.encode("xy"), ElementsAre('x', 'y'));
  EXPECT_THAT(tokenizer.encode("xy", true), ElementsAre(271, 270, 'x', 'y', 271, 270));
  EXPECT_THAT(tokenizer.encode("", true), ElementsAre(271, 270, 271, 270));
}

TEST(Tokenizer, AddedTokensTakeSpacesAndStandAlone) {
  json::value value = small_json();
  json::array& added = value.at("added_tokens").as_array();
  added[0].as_object()["lstrip"] = true;
  added[0].as_object()["rstrip"] = true;
  added[1].as_object()["content"] = "zz";
  added[1].as_object()["single_word"] = true;
  const Tokenizer tokenizer = make(value);
  EXPECT_THAT(tokenizer.encode("x \n<|endoftext|>\u3000 y"), ElementsAre('x', 270, 'y'));
  EXPECT_THAT(tokenizer.encode("  <|endoftext|>  <|endoftext|>"), ElementsAre(270, 270));
  EXPECT_THAT(tokenizer.encode("zz!zz zz"), ElementsAre(271, '!', 271, ' ', 271));
  EXPECT_THAT(tokenizer.encode("zzz _zz zz\u0489"),
              ElementsAre('z', 'z', 'z', ' ', '_', 'z', 'z', ' ', 'z', 'z', 0xD2, 0x89));
}

struct Refusal {
  const char* pointer;  // JSON pointer of what is replaced
  json::value value;
  const char* says;
};

TEST(Tokenizer, RefusesByNameWhatItDoesNotKnow) {
  const Refusal refusals[] = {
      {"/model/type", "Unigram", "Unigram"},
      {"/model/dropout", 0.1, "dropout"},
      {"/model/unk_token", "<unk>", "unk_token needs '<unk>'"},
      {"/model/continuing_subword_prefix", "##", "continuing_subword_prefix"},
      {"/model/end_of_word_suffix", "</w>", "end_of_word_suffix"},
      {"/model/vocab", json::array{}, "vocab"},
      {"/model/vocab/a", -1, "'a' has id -1"},
      {"/model/vocab/a", 1 << 30, "'a' has id"},
      {"/model/vocab/a", 98, "two tokens have id 98"},
      {"/model/merges/0", "t h e", "merge 0"},
      {"/model/merges/0", json::array{"t"}, "merge 0"},
      {"/model/merges/0", "t q", "'tq'"},
      {"/normalizer/type", "BertNormalizer", "BertNormalizer"},
      {"/normalizer", json::object{{"type", "Prepend"}, {"prepend", ""}}, "prepend"},
      {"/pre_tokenizer/type", "Whitespace", "Whitespace"},
      {"/pre_tokenizer/pretokenizers/0/type", "UnicodeScripts", "UnicodeScripts"},
      {"/pre_tokenizer/pretokenizers/0/type", "ByteLevel", "'ByteLevel' after ByteLevel"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "(a", "'(a' cannot be used"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "(?<x>a)\\g<x>", "cannot be used"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", json::string(9'000, 'a'), "9000 bytes"},
      {"/pre_tokenizer/pretokenizers/0/pattern", json::object{{"Glob", "a"}}, "Glob"},
      {"/pre_tokenizer/pretokenizers/0/behavior", "Sideways", "Sideways"},
      {"/post_processor", json::object{{"type", "BertProcessing"}}, "BertProcessing"},
      {"/post_processor", template_of({"A", "A"}), "2 sequences"},
      {"/post_processor", template_of({"B"}), "TemplateProcessing"},
      {"/post_processor", template_of({"<|none|>", "A"}), "<|none|>"},
      {"/decoder/type", "WordPiece", "WordPiece"},
      {"/decoder", nullptr, "decoder"},
      {"/decoder", many_steps("Fuse", "decoders"), "more than 32 steps"},
      {"/pre_tokenizer", many_steps("ByteLevel", "pretokenizers"), "more than 32 steps"},
      {"/added_tokens/0/content", json::string(2'000, 'x'), "2000 bytes"},
      {"/added_tokens/0/content", "", "no content"},
      {"/added_tokens/0/content", "<|end|>", "twice"},
      {"/added_tokens/0/id", 97, "97"},
      {"/added_tokens/0/id", nullptr, "id"},
  };
  for (const Refusal& refusal : refusals) {
    json::value value = small_json();
    json::error_code error;
    json::value* place = value.find_pointer(refusal.pointer, error);
    ASSERT_TRUE(place) << refusal.pointer;
    *place = refusal.value;
    try {
      make(value);
      ADD_FAILURE() << refusal.pointer << " was accepted";
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("t.json")) << refusal.pointer;
      EXPECT_THAT(e.what(), HasSubstr(refusal.says)) << refusal.pointer;
    }
  }
  EXPECT_THROW(Tokenizer("{", "t.json"), ParseError);
  EXPECT_THROW(Tokenizer("[]", "t.json"), Error);
}

TEST(Tokenizer, AcceptsWhatChangesNoIds) {
  json::value value = small_json();
  value.as_object()["normalizer"] = nullptr;
  value.as_object()["post_processor"] = {{"type", "ByteLevel"}, {"trim_offsets", false}};
  value.at("model").as_object()["continuing_subword_prefix"] = "";
  EXPECT_EQ(round_trip(make(value), "e\u0301"), "e\u0301");
}

// As the reference has it: what says nothing new is taken, of merges the later rank counts.
TEST(Tokenizer, TakesIdenticalDuplicates) {
  json::value value = small_json();
  json::object& root = value.as_object();
  json::array& added = root["added_tokens"].as_array();
  const json::value first = added.at(0);
  added.push_back(first);
  EXPECT_EQ(make(value).encode("a<|endoftext|>"), small().encode("a<|endoftext|>"));
  for (const char* flag : {"special", "lstrip", "single_word"}) {
    json::value other = first;
    other.as_object()[flag] = !(first.as_object().contains(flag) && first.at(flag).as_bool());
    added.back() = other;
    EXPECT_THAT(test::error_of([&] { make(value); }), HasSubstr("'<|endoftext|>' is there twice"))
        << flag;
  }
  added.pop_back();

  std::string text = json::serialize(value);
  const std::string vocab = "\"vocab\":{";
  const size_t at = text.find(vocab) + vocab.size();
  ASSERT_NE(text.find("\"a\":97"), std::string::npos);
  EXPECT_EQ(Tokenizer(std::string(text).insert(at, "\"a\":97,"), "t.json").encode("the a"),
            small().encode("the a"));
  EXPECT_THAT(
      test::error_of([&] { Tokenizer(std::string(text).insert(at, "\"a\":98,"), "t.json"); }),
      HasSubstr("duplicate key 'a'"));

  json::object& model = root["model"].as_object();
  model["vocab"].as_object()["ab"] = 300;
  model["vocab"].as_object()["bc"] = 301;
  model["merges"] = {"a b", "b c"};
  EXPECT_THAT(make(value).encode("abc"), ElementsAre(300, 'c'));
  model["merges"] = {"a b", "a b", "b c"};
  EXPECT_THAT(make(value).encode("abc"), ElementsAre(300, 'c'));
  model["merges"] = {"a b", "b c", "a b"};
  EXPECT_THAT(make(value).encode("abc"), ElementsAre('a', 301));
}

TEST(Tokenizer, SkipsTheByteOrderMarkOfItsFile) {
  const test::Folder folder;
  write_file(folder / "tokenizer.json", "\xef\xbb\xbf" + json::serialize(small_json()));
  EXPECT_EQ(Tokenizer(folder / "tokenizer.json").encode("the theme"), small().encode("the theme"));
}

}  // namespace
}  // namespace halo
