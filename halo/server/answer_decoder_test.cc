#include "halo/server/answer_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/utf8.h"

namespace halo {
namespace {

// 256 bytes and a few merges: characters are split over tokens.
const Tokenizer& tokenizer() {
  static const Tokenizer made(train_bpe({"the old dog the old dog", "call the old dog"}, 270,
                                        {"<|endoftext|>", "[TOOL_CALLS]"}),
                              "test");
  return made;
}

struct Through {
  std::string text;
  std::vector<Piece> pieces;
  bool stopped = false, whole = true;  // every piece is of whole characters
};

Through through(AnswerDecoder& answer, const std::vector<int64_t>& ids) {
  Through out;
  const auto add = [&](const std::vector<Piece>& pieces) {
    for (const Piece& piece : pieces) {
      out.text += piece.text;
      out.whole = out.whole && is_utf8(piece.text);
      out.pieces.push_back(piece);
    }
  };
  for (const int64_t id : ids) {
    if (answer.stopped()) break;
    add(answer.push(id));
  }
  out.stopped = answer.stopped();
  add(answer.finish());
  return out;
}

TEST(AnswerDecoder, NeverHasHalfACharacter) {
  const std::string text = "the \xc3\xa4\xe4\xb8\xad\xf0\x9f\x91\x8d dog \xf0\x9f\x98\x80";
  const std::vector<int64_t> ids = tokenizer().encode(text);
  for (size_t size = 0; size <= ids.size(); ++size) {
    AnswerDecoder answer(tokenizer(), {}, {}, {});
    const Through cut = through(answer, {ids.begin(), ids.begin() + static_cast<ptrdiff_t>(size)});
    EXPECT_TRUE(cut.whole) << size;
    EXPECT_EQ(cut.text, tokenizer().decode(std::span(ids).first(size))) << size;
  }
  AnswerDecoder answer(tokenizer(), {}, {}, {});
  through(answer, ids);
  EXPECT_EQ(answer.decoded(), count_characters(text));
  EXPECT_EQ(count_characters(text), 13);
}

TEST(AnswerDecoder, ContinuesACharacterThatThePromptBegan) {
  const std::vector<int64_t> ids = tokenizer().encode("a\xe4\xb8\xad");
  AnswerDecoder answer(tokenizer(), {}, {}, std::span(ids).first(ids.size() - 1));
  EXPECT_EQ(through(answer, {ids.back()}).text, "\xe4\xb8\xad");
}

TEST(AnswerDecoder, EndsBeforeAStopString) {
  Generation generation;
  generation.stop = {"\xe4\xb8\xad x"};
  AnswerDecoder answer(tokenizer(), {}, generation, {});
  const Through cut = through(answer, tokenizer().encode("ab\xe4\xb8\xad xyz"));
  EXPECT_EQ(cut.text, "ab");
  EXPECT_TRUE(cut.stopped);
  EXPECT_EQ(answer.stopped_by(), "\xe4\xb8\xad x");
  EXPECT_EQ(answer.certain(), 2);
}

TEST(AnswerDecoder, SpecialTokensStayWhereTheyMeanSomething) {
  std::vector<int64_t> ids = {*tokenizer().token_id("[TOOL_CALLS]")};
  for (const int64_t id : tokenizer().encode("f{}")) ids.push_back(id);
  ids.push_back(*tokenizer().token_id("<|endoftext|>"));
  AnswerDecoder plain(tokenizer(), {}, {}, {});
  EXPECT_EQ(through(plain, ids).text, "f{}");
  AnswerDecoder calls(tokenizer(), {.tools = ToolFormat::kMistral}, {}, {});
  const Through found = through(calls, ids);
  ASSERT_EQ(found.pieces.size(), 1u);
  EXPECT_EQ(found.pieces[0].call.name, "f");
  EXPECT_TRUE(calls.has_calls());
  Generation shown;
  shown.skip_special_tokens = false;
  AnswerDecoder all(tokenizer(), {}, shown, {});
  EXPECT_EQ(through(all, ids).text, "[TOOL_CALLS]f{}<|endoftext|>");
}

}  // namespace
}  // namespace halo
