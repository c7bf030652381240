// halo import: the authors' checkpoints and GGUF files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/formats/gguf_testing.h"
#include "halo/model/decoder.h"
#include "tests/places.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

const fs::path kGolden = test::source_dir() / "tests/golden/fixtures";

struct Imported {
  fs::path folder;
  json::object report;
};

Imported import(const fs::path& source, Words more = {}) {
  Imported out{World::get().folder("import") / "out", {}};
  Words words = {"import", source.string(), "--out", out.folder.string(), "--json"};
  words.insert(words.end(), more.begin(), more.end());
  const Outcome outcome = run_halo(words);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  if (outcome.code == 0) out.report = json::parse(outcome.out).as_object();
  return out;
}

void expect_import_error(const fs::path& source, Words more, const Words& parts, int code = 1) {
  const fs::path out = World::get().folder("import") / "out";
  Words words = {"import", source.string(), "--out", out.string()};
  words.insert(words.end(), more.begin(), more.end());
  expect_error(run_halo(words), code, parts);
  EXPECT_FALSE(fs::exists(out));
  EXPECT_FALSE(fs::exists(out.string() + ".tmp"));
}

at::Tensor tensor(const fs::path& folder, const std::string& name) {
  return to_tensor(SafetensorsFile(folder / "model.safetensors").get(name));
}

bool same(const fs::path& a, const std::string& name_a, const fs::path& b,
          const std::string& name_b) {
  const SafetensorsFile file_a(a / "model.safetensors"), file_b(b / "model.safetensors");
  const TensorView &x = file_a.get(name_a), &y = file_b.get(name_b);
  return x.dtype == y.dtype && x.shape == y.shape && std::ranges::equal(x.bytes, y.bytes);
}

// Equal but for keys that are carried along: one of them names the type of the weights.
bool same_model(ModelConfig a, const ModelConfig& b) {
  a.other = b.other;
  return a == b;
}

// Every tensor that decoder_parameters asks for, loaded strictly.
Model load(const fs::path& folder) {
  return load_model(folder, ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
}

class ImportGolden : public testing::Test {
 protected:
  const fs::path stage1_ = kGolden / "transfer/stage1", stage2_ = kGolden / "transfer/stage2";
  const Words config_ = {"--config", (kGolden / "transfer/config.json").string()};
};

TEST_F(ImportGolden, Stage2KeepsTheStudentAlone) {
  const Imported done = import(stage2_, config_);
  EXPECT_EQ(done.report.at("layout"), "stage 2");
  EXPECT_TRUE(done.report.at("output_gates").is_null());
  const Model model = load(done.folder);
  EXPECT_TRUE(same_model(model.config, read_model_config(kGolden / "transfer")));
  for (const ParameterSpec& spec : model.store->specs())
    EXPECT_TRUE(same(done.folder, spec.name, stage2_, "student_model." + spec.name)) << spec.name;
}

// Stage 1's mixers: layer 1 stays attention and takes the teacher's.
void expect_stage1_mixers(const fs::path& folder, const fs::path& stage1, bool doubled) {
  for (const auto& [layer, kind] : {std::pair(0, "student"), {1, "teacher"}, {2, "student"}}) {
    for (const std::string name : {"q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "o_proj"}) {
      if (doubled && layer == 1 && name == "o_proj") continue;
      const std::string own = fmt::format("model.layers.{}.self_attn.{}.weight", layer, name);
      const std::string theirs =
          fmt::format("model.model.layers.{}.self_attn.{}_layer.{}.weight", layer, kind, name);
      EXPECT_TRUE(same(folder, own, stage1, theirs)) << own;
    }
  }
}

TEST_F(ImportGolden, Stage1MakesGatesByIdentity) {
  const Imported done = import(stage1_);  // config.json of the folder above
  EXPECT_EQ(done.report.at("layout"), "stage 1");
  EXPECT_EQ(done.report.at("output_gates"), "identity");
  const Model model = load(done.folder);
  EXPECT_EQ(model.config.attention_layers(), std::vector<int64_t>{1});
  expect_stage1_mixers(done.folder, stage1_, true);
  const std::string o = "self_attn.o_proj.weight";
  EXPECT_TRUE(
      at::equal(tensor(done.folder, "model.layers.1." + o),
                tensor(stage1_, "model.model.layers.1.self_attn.teacher_layer.o_proj.weight") * 2));
  EXPECT_EQ(tensor(done.folder, "model.layers.1.self_attn.o_gate.weight").abs().max().item<float>(),
            0);
}

TEST_F(ImportGolden, Stage1MakesGatesOfTheAuthorsForm) {
  Words words = config_;
  words.insert(words.end(), {"--init", "random-gates", "--seed", "5"});
  const Imported done = import(stage1_, words), again = import(stage1_, words);
  EXPECT_EQ(done.report.at("output_gates"), "random-gates");
  expect_stage1_mixers(done.folder, stage1_, false);
  const std::string gate = "model.layers.1.self_attn.o_gate.weight";
  EXPECT_NEAR(tensor(done.folder, gate).std().item<double>(), 0.02, 0.002);
  EXPECT_TRUE(same(done.folder, gate, again.folder, gate));
  words.back() = "6";
  EXPECT_FALSE(same(done.folder, gate, import(stage1_, words).folder, gate));
}

TEST_F(ImportGolden, PlainModelsStayAsTheyAre) {
  for (const char* name : {"hypenet-hype", "qwen3-untied", "llama3-rope", "smollm-like"}) {
    const fs::path source = kGolden / name;
    const Imported once = import(source), twice = import(once.folder);
    EXPECT_EQ(once.report.at("layout"), "final");
    EXPECT_TRUE(same_model(read_model_config(once.folder), read_model_config(source))) << name;
    EXPECT_EQ(read_file(once.folder / "model.safetensors"),
              read_file(twice.folder / "model.safetensors"));
    EXPECT_EQ(read_file(once.folder / "config.json"), read_file(twice.folder / "config.json"));
    const Model model = load(once.folder);
    for (const ParameterSpec& spec : model.store->specs())
      EXPECT_TRUE(same(once.folder, spec.name, source, spec.name)) << spec.name;
  }
}

TEST_F(ImportGolden, OtherTypes) {
  const fs::path source = kGolden / "qwen3-untied";
  const Imported half = import(source, {"--dtype", "float16"});
  EXPECT_EQ(read_json(half.folder / "config.json").at("torch_dtype"), "float16");
  EXPECT_TRUE(at::equal(tensor(half.folder, "lm_head.weight"),
                        tensor(source, "lm_head.weight").to(at::kHalf).to(at::kFloat)));
  expect_import_error(source, {"--dtype", "int8"}, {"--dtype", "int8"}, 2);
  const std::string before = read_file(half.folder / "config.json");
  expect_error(run_halo(Words{"import", source.string(), "--out", half.folder.string()}), 1,
               {half.folder.string(), "is not empty"});
  EXPECT_EQ(read_file(half.folder / "config.json"), before);
}

TEST_F(ImportGolden, WhatIsUnknownIsRefused) {
  const fs::path folder = World::get().folder("import");
  fs::copy(stage1_ / "model.safetensors", folder);
  json::object config = read_json(kGolden / "transfer/config.json").as_object();
  const auto with = [&](const char* key, json::value value) {
    json::object changed = config;
    changed[key] = std::move(value);
    write_json(folder / "config.json", changed);
    return folder;
  };
  expect_import_error(with("mixer_types", {"lightning-attn", "gla", "attn"}), {},
                      {"mixer_types", "'gla'"});
  expect_import_error(with("lightning_scale", "1/D"), {}, {"lightning_scale", "'1/D'"});
  expect_import_error(with("attn_logits_scaling", "hype500"), {}, {"hype500"});
  expect_import_error(with("vocab_size", 95), {}, {"embed_tokens", "[96, 32]"});
  expect_import_error(with("num_hidden_layers", 3), {"--init", "zero"}, {"--init", "'zero'"}, 2);

  // A tensor that no stage has.
  const SafetensorsFile stage1(stage1_ / "model.safetensors");
  for (const auto& [name, part] :
       {std::pair("model.model.layers.0.self_attn.other_layer.x", "stage 1"),
        {"optimizer.step", "stage 1"},
        {"student_model.model.norm.weight", "stage 2"}}) {
    std::vector<TensorView> tensors = stage1.tensors();
    tensors.push_back(tensors.back());
    tensors.back().name = name;
    write_safetensors(folder / "model.safetensors", tensors);
    expect_import_error(with("num_hidden_layers", 3), {}, {part});
  }
  // One that is missing.
  std::vector<TensorView> tensors = stage1.tensors();
  tensors.pop_back();
  write_safetensors(folder / "model.safetensors", tensors);
  expect_import_error(with("num_hidden_layers", 3), {}, {"is missing"});
}

// ---- GGUF: a Llama written as such a file and imported is the Llama.

std::string floats(const at::Tensor& values) {
  const at::Tensor flat = values.to(at::kFloat).contiguous();
  return {static_cast<const char*>(flat.data_ptr()), flat.nbytes()};
}

// The rows of each head as such files have them.
at::Tensor paired(const at::Tensor& rows, int64_t heads) {
  const int64_t size = rows.size(0) / heads;
  return rows.view({heads, 2, size / 2, -1}).transpose(1, 2).reshape(rows.sizes());
}

TEST_F(ImportGolden, GgufOfALlama) {
  const fs::path source = kGolden / "llama-tiny";
  const Model model = load(source);
  const ModelConfig& c = model.config;
  test::GgufWriter w;
  w.add("general.architecture", "llama");
  const auto number = [&](const char* key, int64_t value) {
    w.add(std::string("llama.") + key, static_cast<uint32_t>(value));
  };
  number("block_count", c.num_layers);
  number("context_length", c.max_position_embeddings);
  number("embedding_length", c.hidden_size);
  number("feed_forward_length", c.intermediate_size);
  number("attention.head_count", c.num_heads);
  number("attention.head_count_kv", c.num_kv_heads);
  w.add("llama.rope.freq_base", static_cast<float>(c.rope_theta));
  w.add("llama.attention.layer_norm_rms_epsilon", static_cast<float>(c.rms_norm_eps));
  w.add("tokenizer.ggml.model", "gpt2");
  w.add("tokenizer.ggml.pre", "gpt-2");
  std::vector<std::string> tokens;
  for (int64_t i = 0; i < c.vocab_size; ++i) tokens.push_back(fmt::format("t{}", i));
  w.add("tokenizer.ggml.tokens", tokens);
  w.add("tokenizer.ggml.merges", std::vector<std::string>{});
  const std::pair<const char*, const char*> names[] = {
      {"self_attn.q_proj", "attn_q"},          {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},          {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},           {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},           {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "ffn_norm"}};
  const auto add = [&](const std::string& name, at::Tensor value) {
    if (name.find("attn_q") != name.npos) value = paired(value, c.num_heads);
    if (name.find("attn_k") != name.npos) value = paired(value, c.num_kv_heads);
    std::vector<uint64_t> extents(value.sizes().rbegin(), value.sizes().rend());
    w.tensor(name, extents, 0, floats(value));
  };
  add("token_embd.weight", model.store->value("model.embed_tokens.weight"));
  add("output_norm.weight", model.store->value("model.norm.weight"));
  add("output.weight", model.store->value("lm_head.weight"));
  for (int64_t layer = 0; layer < c.num_layers; ++layer)
    for (const auto& [own, theirs] : names)
      add(fmt::format("blk.{}.{}.weight", layer, theirs),
          model.store->value(fmt::format("model.layers.{}.{}.weight", layer, own)));

  const fs::path file = World::get().folder("gguf") / "m.gguf";
  write_file(file, w.file());
  const Imported done = import(file);
  EXPECT_EQ(done.report.at("layout"), "gguf");
  const Model back = load(done.folder);
  EXPECT_EQ(back.config.model_type, ModelType::kLlama);
  EXPECT_EQ(back.config.rms_norm_eps, c.rms_norm_eps);
  for (const ParameterSpec& spec : model.store->specs())
    EXPECT_TRUE(at::equal(back.store->value(spec.name), model.store->value(spec.name)))
        << spec.name;
  for (const char* side : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"})
    EXPECT_TRUE(fs::exists(done.folder / side)) << side;

  const std::string bytes = w.file();
  write_file(file, bytes.substr(0, bytes.size() - 1));
  expect_import_error(file, {}, {"m.gguf", "byte ", "beyond the file's"});
  expect_import_error(file.parent_path() / "absent.gguf", {}, {"absent.gguf"});
}

}  // namespace
}  // namespace halo::system_test
