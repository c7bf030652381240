// Conversations that a model makes up through a chat template.
#include "halo/pipeline/synthesize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "halo/base/files.h"
#include "halo/model/model_testing.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::HasSubstr;

class ChatData : public testing::Test {
 protected:
  ChatData() {
    write_file(folder_ / "tokenizer.json", tokenizer_text());
    set_template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
  }

  static std::string tokenizer_text() {
    return train_bpe({"user assistant message"}, 260,
                     {"<|endoftext|>", "<|im_start|>", "<|im_end|>"});
  }
  void set_template(const std::string& text) {
    write_json(folder_ / "tokenizer_config.json", json::object{{"chat_template", text}});
  }

  test::Folder folder_;
  Tokenizer tokenizer_{tokenizer_text(), "test"};
};

TEST_F(ChatData, TheFormIsWhatStandsAroundAMessage) {
  const ChatForm form(folder_.path(), tokenizer_);
  EXPECT_EQ(form.before(), tokenizer_.encode("<|im_start|>user\n"));
  EXPECT_EQ(form.end_of_message(), tokenizer_.token_id("<|im_end|>"));
  EXPECT_EQ(form.with_message("so it is"),
            tokenizer_.encode("<|im_start|>user\nso it is<|im_end|>\n<|im_start|>assistant\n"));
  set_template("{% for m in messages %}{{ m.content }} and then: {% endfor %}");
  EXPECT_THAT(test::error_of([&] { ChatForm(folder_.path(), tokenizer_); }),
              HasSubstr("with no special token"));
  set_template("nothing");
  EXPECT_THAT(test::error_of([&] { ChatForm(folder_.path(), tokenizer_); }),
              HasSubstr("does not show what a user says"));
}

TEST_F(ChatData, BothSidesAreTheModelsAndEnd) {
  const ChatForm form(folder_.path(), tokenizer_);
  ModelConfig config = test::hybrid_config();
  config.vocab_size = tokenizer_.vocab_size();
  Scheduler scheduler(test::random_model(config), {});
  Request like{.max_tokens = 2000, .sample = {.temperature = 1}};
  const int64_t end = *tokenizer_.token_id("<|im_end|>");
  const auto documents =
      make_conversations(scheduler, scheduler, form, tokenizer_, {end}, 24, like, 2000);
  ASSERT_EQ(documents.size(), 24u);
  int64_t kept = 0;
  for (const auto& document : documents) {
    if (!document) continue;
    ++kept;
    EXPECT_LT(std::ssize(document->tokens), 2000);
    EXPECT_EQ(document->tokens.back(), end);
    EXPECT_EQ(std::ranges::count(document->tokens, end), 2) << "one ends each side";
    EXPECT_EQ(document->tokens[document->asked - 1], tokenizer_.encode("\n").back());
    EXPECT_EQ(std::ranges::count(document->tokens.begin(),
                                 document->tokens.begin() + document->asked, end),
              1);
    EXPECT_TRUE(std::equal(form.before().begin(), form.before().end(), document->tokens.begin()));
  }
  EXPECT_GT(kept, 0);
  like.seed = 1;
  const auto others =
      make_conversations(scheduler, scheduler, form, tokenizer_, {end}, 24, like, 2000);
  for (size_t i = 0; i < documents.size(); ++i) {
    if (documents[i] && others[i]) EXPECT_NE(documents[i]->tokens, others[i]->tokens);
  }
}

// What it holds follows from its number, not from how many are made together.
TEST_F(ChatData, AConversationIsTheSameAmongAnyOthers) {
  const ChatForm form(folder_.path(), tokenizer_);
  ModelConfig config = test::hybrid_config();
  config.vocab_size = tokenizer_.vocab_size();
  SchedulerOptions options;
  options.kernels = Kernels::kReference;
  Scheduler scheduler(test::random_model(config), options);
  Request like{.max_tokens = 2000, .sample = {.temperature = 1}};
  const auto make = [&](int64_t first, int64_t count) {
    like.stream = first;
    return make_conversations(scheduler, scheduler, form, tokenizer_,
                              {*tokenizer_.token_id("<|im_end|>")}, count, like, 2000);
  };
  const auto all = make(0, 16), first = make(0, 4), rest = make(4, 12);
  int64_t kept = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const std::optional<SampledDocument>& same = i < 4 ? first[i] : rest[i - 4];
    ASSERT_EQ(all[i].has_value(), same.has_value()) << i;
    if (!same) continue;
    EXPECT_EQ(all[i]->tokens, same->tokens) << i;
    kept += i >= 4 ? 1 : 0;
  }
  EXPECT_GT(kept, 0);
}

// Another model's answers to the same messages.
TEST_F(ChatData, AnotherModelMayAnswer) {
  const ChatForm form(folder_.path(), tokenizer_);
  ModelConfig config = test::hybrid_config();
  config.vocab_size = tokenizer_.vocab_size();
  Scheduler asks(test::random_model(config), {}), answers(test::random_model(config, 2), {});
  const Request like{.max_tokens = 2000, .sample = {.temperature = 1}};
  const int64_t end = *tokenizer_.token_id("<|im_end|>");
  const auto make = [&](Scheduler& by) {
    return make_conversations(asks, by, form, tokenizer_, {end}, 24, like, 2000);
  };
  const auto own = make(asks), others = make(answers);
  int64_t both = 0;
  for (size_t i = 0; i < own.size(); ++i) {
    if (!own[i] || !others[i]) continue;
    ++both;
    ASSERT_EQ(own[i]->asked, others[i]->asked);
    EXPECT_TRUE(std::equal(own[i]->tokens.begin(), own[i]->tokens.begin() + own[i]->asked,
                           others[i]->tokens.begin()));
    EXPECT_NE(own[i]->tokens, others[i]->tokens);
  }
  EXPECT_GT(both, 0);
}

}  // namespace
}  // namespace halo
