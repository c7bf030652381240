// Teachers that are not Qwen3: without QK-norm, with biases, with other tokenizers. Transfer, and
// the stages after it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/data/pack.h"
#include "halo/data/tokenizer_testing.h"
#include "halo/pipeline/recipe.h"
#include "halo/stages/transfer.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

// The world's teacher with another type and random weights, and perhaps another tokenizer.
fs::path teacher_of(ModelType type, bool bias, const std::string& tokenizer_json = "") {
  const fs::path folder = World::get().folder("teacher");
  copy_side_files(World::get().teacher(), folder);
  ModelConfig config = read_model_config(World::get().teacher());
  if (!tokenizer_json.empty()) {
    write_file(folder / "tokenizer.json", tokenizer_json);
    const Tokenizer tokenizer(folder / "tokenizer.json");
    config.vocab_size = tokenizer.vocab_size();
    config.eos_token_ids = {tokenizer.document_end()};
  }
  config.model_type = type;
  config.attn_use_qk_norm = false;
  config.attention_bias = bias;
  config.attention_output_bias = bias && type == ModelType::kLlama;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen, at::kFloat,
                       at::kCPU);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(11);
  for (const ParameterSpec& spec : store.specs()) {
    at::Tensor value = store.value(spec.name).normal_(0, 1, generator);
    if (spec.shape.size() > 1) {
      value.div_(std::sqrt(static_cast<double>(spec.shape[1])));
    } else {
      value.mul_(0.1);
      if (!spec.name.ends_with("bias")) value.add_(1);
    }
  }
  save_model(folder, config, store, DType::kF32);
  return folder;
}

const Words kShort = {
    "transfer.qk_norm_tokens=2048", "align.tokens=3072", "align_attention.tokens=3072",
    "distill.tokens=3072",          "finetune.tokens=0", "select.keep=1"};

// The whole pipeline from this teacher.
fs::path convert_from(const fs::path& teacher, const Words& more = {}) {
  const fs::path run = World::get().folder("teachers") / "run";
  Process process = convert(run, false);
  Words set = kShort;
  set.push_back("teacher=" + teacher.string());
  set.insert(set.end(), more.begin(), more.end());
  for (const std::string& s : set) process.arguments.insert(process.arguments.end(), {"--set", s});
  const Outcome outcome = run_halo(process);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return run;
}

at::Tensor tensor(const SafetensorsFile& file, int64_t layer, const std::string& name) {
  return to_tensor(file.get(fmt::format("model.layers.{}.self_attn.{}", layer, name)));
}

// Heads of 16 rows: student heads 0, 1 are teacher head 0, student heads 2, 3 teacher head 1.
at::Tensor expanded(const at::Tensor& rows) {
  return at::cat(
      {rows.slice(0, 0, 16), rows.slice(0, 0, 16), rows.slice(0, 16, 32), rows.slice(0, 16, 32)});
}

void expect_equal(const at::Tensor& got, const at::Tensor& want, const std::string& what) {
  EXPECT_TRUE(at::equal(got, want)) << what;
}

// RMS of each of the 16 dimensions of x W^T + b over tokens and heads.
at::Tensor rms_of_heads(const at::Tensor& inputs, const at::Tensor& weight,
                        const at::Tensor& bias) {
  at::Tensor rows = inputs.to(at::kDouble).matmul(weight.to(at::kDouble).t());
  if (bias.defined()) rows = rows + bias.to(at::kDouble);
  return rows.view({-1, 16}).square().mean(0).sqrt();
}

TEST(TeacherStages, WithoutQkNorm) {
  const fs::path teacher_folder = teacher_of(ModelType::kLlama, false);
  const fs::path run = convert_from(teacher_folder);
  const SafetensorsFile teacher(teacher_folder / "model.safetensors"),
      student(run / "transfer/step-0/model.safetensors");

  Words set = kShort;
  set.push_back("teacher=" + teacher_folder.string());
  const StageContext context(context_settings(read_recipe(World::get().recipe(), set)));
  std::vector<std::vector<at::Tensor>> inputs(4);
  for (const Batch& batch : context.calibration("transfer", 2048))
    decode_visiting(context.teacher().weights, batch,
                    [&](int64_t layer, const at::Tensor& x, const at::Tensor&) {
                      inputs[layer].push_back(x.clone());
                    });
  for (int64_t layer = 0; layer < 4; ++layer) {
    const at::Tensor x = at::cat(inputs[layer]);
    ASSERT_EQ(x.size(0), 2048);
    for (const std::string name : {"q", "k"}) {
      const at::Tensor want = rms_of_heads(x, tensor(teacher, layer, name + "_proj.weight"), {});
      const at::Tensor got = tensor(student, layer, name + "_norm.weight").to(at::kDouble);
      EXPECT_LT((got - want).abs().max().item<double>(), 1e-5) << name << " " << layer;
      EXPECT_GT(want.std().item<double>(), 1e-3);  // not one number for all
    }
    expect_equal(tensor(student, layer, "k_proj.weight"),
                 expanded(tensor(teacher, layer, "k_proj.weight")), "k_proj");
  }

  const ModelConfig config = read_model_config(run / "model");
  EXPECT_FALSE(config.attn_use_qk_norm);
  EXPECT_TRUE(config.lightning_use_qk_norm);
  const SafetensorsFile result(run / "model/model.safetensors");
  for (int64_t layer = 0; layer < 4; ++layer) {
    const bool lightning = config.mixer_types[layer] == MixerType::kLightning;
    const std::string name = fmt::format("model.layers.{}.self_attn.q_norm.weight", layer);
    EXPECT_EQ(result.find(name) != nullptr, lightning);
  }
}

TEST(TeacherStages, WithBiases) {
  const fs::path teacher_folder = teacher_of(ModelType::kQwen2, true);
  const fs::path run = convert_from(teacher_folder);
  const SafetensorsFile teacher(teacher_folder / "model.safetensors"),
      student(run / "transfer/step-0/model.safetensors"),
      attention(run / "align-attention/step-3/model.safetensors");
  EXPECT_EQ(teacher.find("model.layers.0.self_attn.o_proj.bias"), nullptr);
  for (int64_t layer = 0; layer < 4; ++layer) {
    expect_equal(tensor(student, layer, "q_proj.bias"), tensor(teacher, layer, "q_proj.bias"), "q");
    for (const std::string name : {"k_proj.bias", "v_proj.bias"})
      expect_equal(tensor(student, layer, name), expanded(tensor(teacher, layer, name)), name);
    for (const char* name : {"o_proj.bias", "z_proj.bias"})
      EXPECT_EQ(tensor(student, layer, name).abs().max().item<float>(), 0) << name;
    EXPECT_EQ(tensor(attention, layer, "o_proj.bias").size(0), 64);
    EXPECT_EQ(attention.find(fmt::format("model.layers.{}.self_attn.o_gate.bias", layer)), nullptr);
  }
  const ModelConfig config = read_model_config(run / "model");
  EXPECT_TRUE(config.attention_bias);
  EXPECT_TRUE(config.attention_output_bias);
  EXPECT_FALSE(config.attn_use_qk_norm);
}

// Llama 2's and Llama 3's kinds: a space in front of every text, several digits a token, begin
// tokens. From text to a finished run.
TEST(TeacherStages, WithOtherTokenizers) {
  for (const auto& [name, json] :
       {std::pair<std::string, std::string>{"prefixed space", test::prefixed_space_json()},
        {"metaspace", test::prefixed_space_json(true)},
        {"digit triples", test::digit_triples_json()},
        {"digit pairs", test::digit_pairs_json()}}) {
    SCOPED_TRACE(name);
    const fs::path teacher = teacher_of(ModelType::kLlama, false, json);
    for (const std::string text : {"train", "held-out"}) {
      pack({World::get().path(text + ".jsonl")}, teacher / "tokenizer.json", teacher / text, {});
    }
    const Words data = {"data.shards=[\"" + (teacher / "train").string() + "\"]",
                        "eval.held_out=\"" + (teacher / "held-out").string() + "\""};
    const fs::path run = convert_from(teacher, data);
    EXPECT_EQ(read_file(run / "STATUS"), "done\n");

    // What was trained on: every piece that is a whole document begins as documents do, and the
    // begin token stands nowhere else.
    Words set = kShort;
    set.push_back("teacher=" + teacher.string());
    set.insert(set.end(), data.begin(), data.end());
    const Recipe recipe = read_recipe(World::get().recipe(), set);
    const StageContext context(context_settings(recipe));
    const auto begin = Tokenizer(teacher / "tokenizer.json").document_begin();
    const Loader loader = context.loader(recipe.data, recipe.distill, "distill");
    const TrainBatch batch = loader.step(0);
    const int64_t* ids = batch.tokens.const_data_ptr<int64_t>();
    int64_t needles = 0;
    for (size_t p = 0; p + 1 < batch.offsets.size(); ++p) {
      const std::vector<int64_t> piece(ids + batch.offsets[p], ids + batch.offsets[p + 1]);
      const bool is_needle = context.needles().mentions_needle(piece);
      needles += is_needle;
      if (!begin) continue;
      EXPECT_EQ(std::count(piece.begin() + 1, piece.end(), *begin), 0);
      if (is_needle) EXPECT_EQ(piece.front(), *begin);
    }
    EXPECT_EQ(needles, 1);  // of 4 rows, as data.needle_share says
  }
}

TEST(TeacherStages, KeptAttentionStartsAsTheTeachersMixer) {
  // init identity with RoPE left on: the same function, biases and absent norms included.
  for (const auto& [type, bias] : {std::pair(ModelType::kLlama, true), {ModelType::kQwen2, true}}) {
    at::NoGradGuard no_grad;
    const Model teacher =
        load_model(teacher_of(type, bias), ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
    ModelConfig config =
        student_config(teacher.config, std::vector<MixerType>(4, MixerType::kAttention));
    config.attn_use_rope = true;
    ParameterStore store(decoder_parameters(config), ParameterStore::Use::kFrozen, at::kFloat,
                         at::kCPU);
    transfer(teacher, config, store, {.init = TransferInit::kIdentity});
    EXPECT_EQ(transfer_error(teacher, config, store, TransferInit::kIdentity), 0);
    const Batch batch = make_batch(at::arange(50), {0, 50}, at::kCPU);
    const at::Tensor want = decode(teacher.weights, batch);
    const at::Tensor got = decode(bind_decoder(config, store), batch);
    EXPECT_LT((got - want).abs().max().item<double>(), 1e-4);
  }
}

}  // namespace
}  // namespace halo::system_test
