#include "halo/exchange/model_card.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/formats/model_config.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

ModelConfig hybrid() {
  return parse_model_config({{"model_type", "hypenet"},
                             {"vocab_size", 100},
                             {"hidden_size", 64},
                             {"intermediate_size", 128},
                             {"num_hidden_layers", 4},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 2},
                             {"head_dim", 16},
                             {"attn_use_rope", false},
                             {"attn_logits_scaling", "hype 500"},
                             {"mixer_types", {"lightning-attn", "attn", "lightning-attn", "attn"}}},
                            "config.json");
}

json::object needle(double accuracy) {
  return {{"4096", {{"accuracy", accuracy}, {"stderr", 0.01}}}};
}

class ModelCardTest : public ::testing::Test {
 protected:
  ModelCardTest() {
    write("summary.json",
          {{"training_length", 512},
           {"teacher", {{"loss", 1.9732}, {"stderr", 0.01}, {"needle", needle(0.25)}}},
           {"student",
            {{"loss", 2.1018},
             {"stderr", 0.02},
             {"n", 2000},
             {"clusters", 30},
             {"kl", 0.1784},
             {"kl_stderr", 0.003},
             {"needle", needle(0.975)},
             {"needle_unscaled", needle(0.5)},
             {"mixer_types", {"lightning-attn", "attn", "lightning-attn", "attn"}},
             {"attn_logits_scaling", "hype 500"}}},
           {"tokens_per_stage", {{"align", 4096}}},
           {"seconds", 683.2}});
    write("env.json", {{"command", "halo convert a|b.toml"}, {"teacher", "demo/teacher"}});
    write_file(run_ / "config.resolved.toml", "teacher = \"demo/teacher\"\n");
  }

  void write(const char* name, const json::object& object) const {
    write_json(run_ / name, object);
  }

  const test::Folder run_;
};

TEST_F(ModelCardTest, SaysWhatTheModelIs) {
  const std::string card = model_card("my_model", hybrid(), {});
  EXPECT_THAT(card, StartsWith("---\nlibrary_name: transformers\n"));
  EXPECT_THAT(card, HasSubstr("# my\\_model\n"));
  EXPECT_THAT(card, HasSubstr("Of its 4 layers 2 use softmax attention (layers 1, 3; without "
                              "positions)"));
  EXPECT_THAT(card, HasSubstr("a = 500"));
  EXPECT_THAT(card, HasSubstr("| keys and values, a token (bf16) | 256 |"));
  EXPECT_THAT(card, HasSubstr("| the same with attention in all 4 layers | 512 |"));
  EXPECT_THAT(card, HasSubstr("of 2 Lightning layers (fp32), at every length | 8,192 |"));
  EXPECT_THAT(card, HasSubstr("exported without its run"));
  EXPECT_THAT(card, Not(HasSubstr("Where it comes from")));
}

TEST_F(ModelCardTest, QuotesTheRun) {
  const std::string card = model_card("m", hybrid(), run_.path());
  for (const char* text :
       {"| loss, nats a token | 2.102 ± 0.020 | 1.973 ± 0.010 |",
        "| KL from the teacher, nats a token | 0.178 ± 0.003 | – |",
        "Over 2,000 tokens of 30 documents", "No sequence longer than 512 tokens",
        "| 4,096 tokens | 0.975 ± 0.010 | 0.500 ± 0.010 | 0.250 ± 0.010 |",
        "| command | halo convert a\\|b.toml |", "| tokens of stage align | 4,096 |",
        "```toml\nteacher = \"demo/teacher\"\n"}) {
    EXPECT_THAT(card, HasSubstr(text));
  }
  EXPECT_THAT(card, Not(HasSubstr("bits a byte")));  // not measured
}

TEST_F(ModelCardTest, RefusesTheFiguresOfAnotherModel) {
  ModelConfig other = hybrid();
  other.attn_logits_scaling.a = 300;
  try {
    model_card("m", other, run_.path());
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("another 'attn_logits_scaling' than the model"));
  }
}

TEST_F(ModelCardTest, RefusesARunThatIsNotFinished) {
  std::filesystem::remove(run_ / "summary.json");
  EXPECT_THAT(test::error_of([&] { model_card("m", hybrid(), run_.path()); }),
              HasSubstr("there is no summary.json"));
}

}  // namespace
}  // namespace halo
