// Rotary settings as config.json has them; the figures are those of transformers 5.24.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/formats/model_config.h"
#include "tests/testing.h"

namespace halo {
namespace {

using testing::AllOf;
using testing::HasSubstr;

json::object llama() {
  return {{"model_type", "llama"},    {"vocab_size", 100},
          {"hidden_size", 64},        {"intermediate_size", 128},
          {"num_hidden_layers", 2},   {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"max_position_embeddings", 16384}};
}

ModelConfig parse(const json::object& object) {
  return parse_model_config(object, "c.json");
}

ModelConfig with(const char* key, json::value value) {
  json::object object = llama();
  object[key] = std::move(value);
  return parse(object);
}

std::string error_with(const char* key, const json::value& value) {
  return test::error_of([&] { with(key, value); });
}

TEST(RopeConfig, WithoutATypeThereIsNoScaling) {
  const json::object theta{{"rope_theta", 5000.0}};
  EXPECT_EQ(with("rope_parameters", theta), with("rope_theta", 5000.0));
  EXPECT_EQ(with("rope_scaling", theta), with("rope_theta", 5000.0));
  EXPECT_EQ(with("rope_parameters", json::object{{"rope_theta", 5000.0}, {"rope_type", nullptr}}),
            with("rope_theta", 5000.0));
  EXPECT_EQ(with("rope_parameters", json::object{}), parse(llama()));
  // Nothing of a scaling is dropped in silence.
  for (const char* place : {"rope_scaling", "rope_parameters"})
    EXPECT_THAT(error_with(place, json::object{{"factor", 4.0}}),
                AllOf(HasSubstr(place), HasSubstr("'factor'"), HasSubstr("'rope_type'")));
}

TEST(RopeConfig, PartialRotationsAreRefusedWhereverTheyStand) {
  for (const char* place : {"rope_scaling", "rope_parameters"}) {
    EXPECT_EQ(with(place, json::object{{"rope_theta", 5000.0}, {"partial_rotary_factor", 1.0}}),
              with("rope_theta", 5000.0));
    EXPECT_THAT(error_with(place, json::object{{"partial_rotary_factor", 0.5}}),
                HasSubstr("partial_rotary_factor"));
  }
}

TEST(RopeConfig, ASetForEachTypeOfLayer) {
  const json::object linear{{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 5000.0}};
  json::object config = llama();
  config["layer_types"] = {"full_attention", "full_attention"};
  config["rope_parameters"] =
      json::object{{"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 10.0}}},
                   {"full_attention", linear}};
  const ModelConfig c = parse(config);
  EXPECT_EQ(c.rope_theta, 5000);
  EXPECT_EQ(c.rope_scaling, with("rope_scaling", linear).rope_scaling);
  config["rope_parameters"] = json::object{{"full_attention", {{"rope_type", "none"}}}};
  EXPECT_THAT(test::error_of([&] { parse(config); }), HasSubstr("full_attention: key 'rope_type'"));
  config["rope_parameters"] = json::object{{"full_attention", 5}};
  EXPECT_THAT(test::error_of([&] { parse(config); }), HasSubstr("'full_attention' must be"));
}

json::object yarn(std::initializer_list<std::pair<const char*, json::value>> more) {
  json::object out{
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 4096}};
  for (const auto& [key, value] : more) out[key] = value;
  return out;
}

// Every setting is kept through writing.
ModelConfig kept(const json::object& scaling) {
  const ModelConfig c = with("rope_scaling", scaling);
  EXPECT_EQ(parse(model_config_to_json(c)), c) << scaling;
  return c;
}

TEST(RopeConfig, YarnsMagnitude) {
  EXPECT_NEAR(rope_magnitude(kept(yarn({}))), 1.138629436111989, 1e-15);
  EXPECT_NEAR(rope_magnitude(kept(yarn({{"mscale", 0.707}, {"mscale_all_dim", 1.0}}))),
              0.964326914892074, 1e-15);
  // One of the two alone counts as none, and a factor that is given before both.
  EXPECT_NEAR(rope_magnitude(kept(yarn({{"mscale", 0.707}}))), 1.138629436111989, 1e-15);
  EXPECT_EQ(rope_magnitude(kept(
                yarn({{"attention_factor", 0.5}, {"mscale", 0.707}, {"mscale_all_dim", 1.0}}))),
            0.5);
  EXPECT_THAT(error_with("rope_scaling", yarn({{"mscale", -40}, {"mscale_all_dim", 1}})),
              HasSubstr("'mscale'"));
}

TEST(RopeConfig, YarnsRamp) {
  const auto frequencies = [](const json::object& scaling) {
    return rope_frequencies(kept(scaling), 16);
  };
  const auto expect = [](const std::vector<double>& got, std::vector<double> wanted) {
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(got[i + 3] / wanted[i], 1, 1e-6) << i;
  };
  expect(frequencies(yarn({})),
         {0.025693506002426147, 0.00624999962747097, 0.0013834965648129582, 0.0002500000118743628});
  expect(frequencies(yarn({{"truncate", false}})), {0.028613610193133354, 0.006556970998644829,
                                                    0.0012856319081038237, 0.0002500000118743628});
  expect(frequencies(yarn({{"beta_fast", 16}, {"beta_slow", 2}})),
         {0.03162277862429619, 0.007499999366700649, 0.0015811389312148094, 0.0002500000118743628});
  // Without a length, and with a length of null: that of the model.
  for (const json::object& scaling : {json::object{{"rope_type", "yarn"}, {"factor", 4.0}},
                                      yarn({{"original_max_position_embeddings", nullptr}})})
    expect(frequencies(scaling), {0.03162277862429619, 0.008124999701976776, 0.0019764236640185118,
                                  0.00043750001350417733});
  // A factor of null: the lengths say it.
  expect(frequencies(yarn({{"factor", nullptr}})),
         {0.025693506002426147, 0.00624999962747097, 0.0013834965648129582, 0.0002500000118743628});
  // Says how the model came about, and changes nothing.
  EXPECT_EQ(kept(yarn({{"finetuned", true}})).rope_scaling, kept(yarn({})).rope_scaling);
  EXPECT_THAT(error_with("rope_scaling", json::object{{"rope_type", "yarn"}}), HasSubstr("factor"));
  EXPECT_THAT(error_with("rope_scaling", yarn({{"beta_fats", 16}})), HasSubstr("'beta_fast'"));
}

TEST(RopeConfig, Llama3WithoutALengthTakesTheModels) {
  const ModelConfig c = kept({{"rope_type", "llama3"},
                              {"factor", 4.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0}});
  EXPECT_EQ(c.rope_scaling.original_max_position_embeddings, 16384);
  EXPECT_NEAR(rope_frequencies(c, 16)[6], 0.0006518986774608493, 1e-9);
}

}  // namespace
}  // namespace halo
