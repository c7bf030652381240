// Tokenizers that are not byte-level, and every kind of normalizer, pre-tokenizer and decoder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/tokenizer/normalize.h"
#include "halo/tokenizer/pre_tokenize.h"
#include "halo/tokenizer/regex.h"
#include "halo/tokenizer/tokenizer.h"
#include "halo/tokenizer/unicode.h"

namespace halo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int64_t>;

// As Llama-2's: 0 .. 2 are <unk>, <s>, </s>, then come the bytes, letters and what they merge into.
constexpr int64_t kByte = 3, kMark = 259, kA = 260, kB = 261, kMarkA = 262, kAb = 263,
                  kMarkAb = 264, kMarks = 265;

json::object llama2_json() {
  json::object vocab{{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = kByte + byte;
  for (const char* token : {"▁", "a", "b", "▁a", "ab", "▁ab", "▁▁"}) vocab[token] = vocab.size();
  json::object root = parse_json(R"({
    "added_tokens": [{"id": 1, "content": "<s>", "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}})",
                                 "test")
                          .as_object();
  root["model"] = {{"type", "BPE"},    {"unk_token", "<unk>"},
                   {"fuse_unk", true}, {"byte_fallback", true},
                   {"vocab", vocab},   {"merges", {"a b", "▁ ab", "▁ a", "▁ ▁"}}};
  return root;
}

Tokenizer make(const json::object& root) {
  return Tokenizer(json::serialize(root), "t.json");
}

Tokenizer with_metaspace(std::string_view scheme, bool split) {
  json::object root = llama2_json();
  root.erase("normalizer");
  root["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", split}};
  return make(root);
}

std::string stream(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer);
  std::string out;
  for (const int64_t id : ids) decoder.push(id, out);
  decoder.finish(out);
  return out;
}

TEST(Llama2, WordsBeginWithAMark) {
  const Tokenizer tokenizer = make(llama2_json());
  EXPECT_THAT(tokenizer.encode("ab a"), ElementsAre(kMarkAb, kMarkA));
  EXPECT_THAT(tokenizer.encode("ab", true), ElementsAre(1, kMarkAb));
  EXPECT_THAT(tokenizer.encode(""), ElementsAre());
  EXPECT_THAT(tokenizer.encode("   b"), ElementsAre(kMarks, kMarks, kB));
  // The normalizer prepends to every stretch between special tokens.
  EXPECT_THAT(tokenizer.encode("a<s>a"), ElementsAre(kMarkA, 1, kMarkA));
}

TEST(Llama2, CharactersWithoutTokenBecomeBytes) {
  const Tokenizer tokenizer = make(llama2_json());
  EXPECT_THAT(tokenizer.encode("€\n"),
              ElementsAre(kMark, kByte + 0xE2, kByte + 0x82, kByte + 0xAC, kByte + '\n'));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("ab €\n a<s>b")), "ab €\n a<s> b");
  EXPECT_EQ(tokenizer.token_bytes(kByte + 0xE2), "\xE2");
  EXPECT_EQ(tokenizer.token_bytes(kMarkAb), " ab");
}

TEST(Llama2, UnknownCharacters) {
  json::object root = llama2_json();
  json::object& model = root["model"].as_object();
  model["byte_fallback"] = false;
  EXPECT_THAT(make(root).encode("a€€b€"), ElementsAre(kMarkA, 0, kB, 0));
  model["fuse_unk"] = false;
  EXPECT_THAT(make(root).encode("a€€b"), ElementsAre(kMarkA, 0, 0, kB));
  model["unk_token"] = nullptr;
  EXPECT_THAT(make(root).encode("a€b"), ElementsAre(kMarkAb));
  // A byte without token: the character is unknown, and the bytes of the next overtake it.
  model["unk_token"] = "<unk>";
  model["byte_fallback"] = true;
  model["vocab"].as_object().erase("<0xE2>");
  EXPECT_THAT(make(root).encode("a€\nb"), ElementsAre(kMarkA, kByte + '\n', 0, kB));
}

TEST(Llama2, BytesAreDecodedTogether) {
  const Tokenizer tokenizer = make(llama2_json());
  const Ids euro = {kByte + 0xE2, kByte + 0x82, kByte + 0xAC};
  Ids ids = {kMarkA};
  ids.insert(ids.end(), euro.begin(), euro.end());
  EXPECT_EQ(tokenizer.decode(ids), "a€");
  ids.push_back(kByte + 0xFF);  // one bad byte spoils all in a row
  const std::string r = "\uFFFD";
  EXPECT_EQ(tokenizer.decode(ids), "a" + r + r + r + r);
  EXPECT_EQ(stream(tokenizer, ids), tokenizer.decode(ids));
  ids.push_back(kB);
  EXPECT_EQ(stream(tokenizer, ids), "a" + r + r + r + r + "b");

  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(kMark), "");
  EXPECT_EQ(decoder.push(kMark), " ");
  EXPECT_EQ(decoder.push(euro[0]), "");
  EXPECT_EQ(decoder.push(euro[1]), "");
  EXPECT_EQ(decoder.push(euro[2]), "");
  EXPECT_EQ(decoder.push(kB), "€b");
  EXPECT_EQ(decoder.push(euro[0]), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
}

// A text without pre-tokenizer is one piece.
TEST(Llama2, MegabytesInOnePiece) {
  const Tokenizer tokenizer = make(llama2_json());
  const size_t size = size_t{4} << 20;
  const Ids ids = tokenizer.encode(std::string(size, 'a'));
  EXPECT_EQ(ids.size(), size);
  EXPECT_EQ(tokenizer.decode(ids).size(), size);
  EXPECT_EQ(tokenizer.encode(std::string(size, ' ')).size(), size / 2 + 1);
  EXPECT_EQ(tokenizer.encode(std::string(size, '!')).size(), size + 1);
}

TEST(Metaspace, PrependsAlwaysFirstOrNever) {
  EXPECT_THAT(with_metaspace("always", false).encode("a<s>a"), ElementsAre(kMarkA, 1, kMarkA));
  EXPECT_THAT(with_metaspace("first", false).encode("a<s>a"), ElementsAre(kMarkA, 1, kA));
  EXPECT_THAT(with_metaspace("first", false).encode("<s>a"), ElementsAre(1, kA));
  EXPECT_THAT(with_metaspace("never", false).encode("a<s> a"), ElementsAre(kA, 1, kMarkA));
  EXPECT_THAT(with_metaspace("always", false).encode(" a"), ElementsAre(kMarkA));
}

TEST(Metaspace, SplitsBeforeMarks) {
  EXPECT_THAT(with_metaspace("always", false).encode("  a"), ElementsAre(kMark, kMarkA));
  EXPECT_THAT(with_metaspace("always", false).encode("  b"), ElementsAre(kMarks, kB));
  EXPECT_THAT(with_metaspace("always", true).encode("  b"), ElementsAre(kMark, kMark, kB));
}

TEST(Metaspace, DecoderDropsTheFirstMark) {
  json::object root = llama2_json();
  root["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}};
  EXPECT_EQ(make(root).decode(Ids{kMarkA, kMarkAb, kMarks, kB}), "a ab  b");
  EXPECT_EQ(make(root).decode(Ids{kMarks, kMarkA}), " a");
  // Ids without token do not count.
  root["model"].as_object()["vocab"].as_object()["c"] = 300;
  EXPECT_EQ(make(root).decode(Ids{299, -1, 400, kMarkA, kMarkAb}), "a ab");
  root["decoder"].as_object()["prepend_scheme"] = "never";
  EXPECT_EQ(make(root).decode(Ids{kMarkA, kMarkAb}), " a ab");
  root["decoder"].as_object()["prepend_scheme"] = "sometimes";
  EXPECT_THROW(make(root), Error);
}

TEST(Decoder, StepsAcrossTokens) {
  json::object root = llama2_json();
  root["decoder"] = parse_json(R"({"type": "Sequence", "decoders": [
      {"type": "Strip", "content": "b", "start": 0, "stop": 1}, {"type": "Fuse"},
      {"type": "Replace", "pattern": {"String": "aa▁"}, "content": "x"},
      {"type": "Strip", "content": "a", "start": 1, "stop": 2}]})",
                               "test");
  const Tokenizer tokenizer = make(root);
  const std::pair<Ids, std::string> cases[] = {
      {{kAb, kAb, kMarkAb, kA, kB}, "x"},  // a a ▁a a -> xaa
      {{kA, kA, kA, kMark, kB}, "x"},      // aaa▁ -> ax
      {{kMark, kA, kA, kA, kA}, "▁aa"},   {{kA}, ""}, {{}, ""},
  };
  for (const auto& [ids, expected] : cases) {
    EXPECT_EQ(tokenizer.decode(ids), expected);
    EXPECT_EQ(stream(tokenizer, ids), expected);
  }
}

// 2^30 bytes from one token are refused before they fill the memory.
TEST(Decoder, ReplacementsThatGrowAreBounded) {
  json::object root = llama2_json();
  json::array steps;
  for (int i = 0; i < 30; ++i) {
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}});
  }
  root["decoder"] = {{"type", "Sequence"}, {"decoders", steps}};
  EXPECT_THROW(make(root).decode(Ids{kA}), Error);
  root["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  EXPECT_THROW(make(root).encode("a"), Error);
}

std::string normalized(std::string_view text, std::vector<Normalizer::Step> steps) {
  std::string buffer;
  return std::string(Normalizer(std::move(steps)).apply(text, buffer, 1'000));
}

TEST(Normalizer, Steps) {
  EXPECT_EQ(normalized("ÀÇİΣß\u1E9E", {Lowercase{}}), "àçi\u0307σßß");
  EXPECT_EQ(normalized("", {Prepend{"x"}}), "");
  EXPECT_EQ(normalized("a", {Prepend{"x"}}), "xa");
  EXPECT_EQ(normalized("aaa", {Replace{"aa", "b"}}), "ba");
  EXPECT_EQ(normalized("a12b3", {Replace{Regex("\\d+", "t"), "#"}}), "a#b#");
  EXPECT_EQ(normalized("ab", {Replace{Regex("x*", "t"), "-"}}), "-a-b-");
  EXPECT_EQ(normalized(" \u3000a \n", {StripSpaces{true, false}}), "a \n");
  EXPECT_EQ(normalized(" a\u0085\n", {StripSpaces{false, true}}), " a");
  EXPECT_EQ(normalized(" \n", {StripSpaces{true, true}}), "");
}

TEST(Normalizer, Forms) {
  const std::string text = "ﬁ Å e\u0301 각 ½ \uFDFA";
  EXPECT_EQ(normalize(text, NormalForm::kNfc), "ﬁ Å é 각 ½ \uFDFA");
  EXPECT_EQ(normalize(text, NormalForm::kNfd), "ﬁ A\u030A e\u0301 \u1100\u1161\u11A8 ½ \uFDFA");
  EXPECT_EQ(normalize("ﬁ Å ½", NormalForm::kNfkc), "fi Å 1\u20442");
  EXPECT_EQ(normalize("ﬁ Å ½", NormalForm::kNfkd), "fi A\u030A 1\u20442");
  EXPECT_EQ(normalize("\u1E9B\u0323", NormalForm::kNfkc), "\u1E69");
  EXPECT_EQ(normalize("\u1E9B\u0323", NormalForm::kNfkd), "s\u0323\u0307");
}

// The reference's normal forms are those of Unicode 9: U+08CA, a mark of Unicode 14, stays where it
// is and nothing composes across it.
TEST(Normalizer, MarksYoungerThanTheReference) {
  EXPECT_EQ(normalize("a\u08CA\u0323", NormalForm::kNfd), "a\u08CA\u0323");
  EXPECT_EQ(normalize("a\u0301\u0323", NormalForm::kNfd), "a\u0323\u0301");
  EXPECT_EQ(normalize("a\u1DFA\u0301", NormalForm::kNfc), "a\u1DFA\u0301");
  EXPECT_EQ(normalize("\U00011935\U00011930", NormalForm::kNfc), "\U00011935\U00011930");
  EXPECT_EQ(normalize("\U00011938", NormalForm::kNfd), "\U00011938");
  EXPECT_EQ(normalize("\u32FF", NormalForm::kNfkc), "\u32FF");
}

// All classes at once: another utf8proc must not move them.
TEST(Unicode, ClassesAreThoseOfUnicode16) {
  uint64_t hash = 0xCBF29CE484222325;
  size_t letters = 0, numbers = 0, spaces = 0, words = 0, young = 0, inert = 0;
  for (char32_t code = 0; code < 0x110000; ++code) {
    const CharClass kind = char_class(code);
    hash = (hash ^ static_cast<uint64_t>(kind)) * 0x100000001B3;
    hash = (hash ^ (is_word(code) + 2 * is_young(code) + 4 * is_nfc_inert(code))) * 0x100000001B3;
    letters += kind == CharClass::kLetter;
    numbers += kind == CharClass::kNumber;
    spaces += is_space(code);
    words += is_word(code);
    young += is_young(code);
    inert += is_nfc_inert(code);
  }
  EXPECT_EQ(letters, 141'028);
  EXPECT_EQ(numbers, 1'911);
  EXPECT_EQ(spaces, 25);
  EXPECT_EQ(hash, 0xD09AFDAF25DE00B0) << words << " " << young << " " << inert;
}

std::vector<std::string> cut(std::string_view text, PreTokenizer::Step step) {
  std::vector<std::string> out;
  PreTokenizer({std::move(step)}).run(text, true, [&](std::string_view piece) {
    out.emplace_back(piece);
  });
  return out;
}

TEST(PreTokenizer, SplitBehaviors) {
  const auto split = [](SplitBehavior behavior, bool invert = false) {
    return cut("a--b-", Split{"-", behavior, invert});
  };
  EXPECT_THAT(split(SplitBehavior::kIsolated), ElementsAre("a", "-", "-", "b", "-"));
  EXPECT_THAT(split(SplitBehavior::kRemoved), ElementsAre("a", "b"));
  EXPECT_THAT(split(SplitBehavior::kContiguous), ElementsAre("a", "--", "b", "-"));
  EXPECT_THAT(split(SplitBehavior::kMergedWithPrevious), ElementsAre("a-", "-", "b-"));
  EXPECT_THAT(split(SplitBehavior::kMergedWithNext), ElementsAre("a", "-", "-b", "-"));
  EXPECT_THAT(split(SplitBehavior::kRemoved, true), ElementsAre("-", "-", "-"));
  EXPECT_THAT(cut("ab12", Split{Regex("\\d", "t"), SplitBehavior::kIsolated, false}),
              ElementsAre("ab", "1", "2"));
  EXPECT_THAT(cut("a b", Split{Pattern::kGpt2, SplitBehavior::kRemoved, true}),
              ElementsAre("a", " b"));
  EXPECT_THAT(cut("a b", Split{Pattern::kGpt2, SplitBehavior::kRemoved, false}), ElementsAre());
}

TEST(PreTokenizer, DigitsAndPrefixSpace) {
  EXPECT_THAT(cut("a12½b", Digits{true}), ElementsAre("a", "1", "2", "½", "b"));
  EXPECT_THAT(cut("12½b", Digits{false}), ElementsAre("12½", "b"));
  EXPECT_THAT(cut("it's", ByteLevel{true, true}), ElementsAre(" it", "'s"));
  EXPECT_THAT(cut(" it's", ByteLevel{true, false}), ElementsAre(" it's"));
}

// Every step works on the pieces of the one before: these spaces end a piece.
TEST(PreTokenizer, SmolLm2CutsDigitsBeforeSpaces) {
  std::vector<std::string> out;
  const PreTokenizer steps({Digits{true}, ByteLevel{false, true}});
  steps.run("a  1 b", true, [&](std::string_view piece) { out.emplace_back(piece); });
  EXPECT_THAT(out, ElementsAre("a", "  ", "1", " b"));
}

TEST(Regex, GivesUpOnPatternsThatBacktrackTooLong) {
  const Regex regex("(a|a)*(a|a)*\\d", "t");
  const std::string text(40, 'a');
  try {
    regex.for_each_match(text, [](size_t, size_t) {});
    ADD_FAILURE() << "matched";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("(a|a)*"));
  }
}

}  // namespace
}  // namespace halo
