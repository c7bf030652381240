#include "tests/system/tiny_world.h"

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/base/files.h"
#include "halo/model/decoder.h"
#include "halo/model/model_testing.h"

namespace halo::system_test {
namespace {

constexpr const char* kTinyRecipe = R"(
teacher = "{0}/teacher"
[run]
seed = 3
threads = 1
[data]
shards = ["{0}/train"]
needle_share = 0.25
[transfer]
calibration_tokens = 96
[align]
tokens = 288
sequence_length = 96
tokens_per_step = 96
micro_batch_rows = 1
warmup_steps = 1
checkpoint_every = 1
[align_attention]
tokens = 96
sequence_length = 96
tokens_per_step = 96
micro_batch_rows = 1
warmup_steps = 0
[select]
rule = "even"
needle_length = 96
needle_haystacks = 1
needle_questions = 1
held_out_rows = 1
bootstrap = 2
[distill]
tokens = 288
sequence_length = 96
tokens_per_step = 96
micro_batch_rows = 1
warmup_steps = 1
checkpoint_every = 1
[finetune]
tokens = 96
sequence_length = 96
tokens_per_step = 96
micro_batch_rows = 1
warmup_steps = 0
[on_policy]
tokens = 96
sequence_length = 48
tokens_per_step = 96
micro_batch_rows = 1
warmup_steps = 0
[scale]
candidates = [500]
lengths = [128]
haystacks = 1
questions = 1
documents = 1
[eval]
held_out = "{0}/held-out"
lengths = [96]
held_out_tokens = 96
haystacks = 1
questions = 1
position_documents = 1
[gates]
align_explained_variance = -1e9
select_ratio = 1e9
distill_kl = 1e9
finetune_loss_decrease = -1e9
on_policy_kl_decrease = -1e9
scale_needle = 0
)";

}  // namespace

TinyWorld::TinyWorld() {
  at::set_num_threads(1);  // threads would be missing in the children
  const World& world = World::get();
  for (const char* name : {"train", "held-out"}) {
    fs::copy(world.path(name), root_ / name, fs::copy_options::recursive);
  }
  fs::create_directories(root_ / "teacher");
  fs::copy(world.teacher() / "tokenizer.json", root_ / "teacher" / "tokenizer.json");
  write_file(root_ / "recipe.toml", fmt::format(fmt::runtime(kTinyRecipe), root_.path().string()));
  ModelConfig c = read_model_config(world.teacher());
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_layers = 2;
  c.max_position_embeddings = 96;
  c.mixer_types.resize(2);
  for (const uint64_t seed : {7, 8}) {
    ParameterStore store(decoder_parameters(c), ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
    test::fill_random(store, seed);
    save_model(root_ / "teacher", c, store, DType::kF32);
    teachers_.push_back(read_file(root_ / "teacher" / "model.safetensors"));
  }
  train_ = {read_file(shard("train")), read_file(shard("held-out"))};
}

Recipe TinyWorld::recipe(const Words& set) const {
  return read_recipe(root_ / "recipe.toml", set);
}

void TinyWorld::touch(bool teacher, size_t which) {
  write_file(teacher ? path("teacher") / "model.safetensors" : shard("train"),
             teacher ? teachers_[which] : train_[which]);
  (teacher ? teacher_ : text_) = which;
}

std::string TinyWorld::versions() const {
  return fmt::format("{} {}", teacher_, text_);
}

fs::path TinyWorld::shard(const std::string& name) const {
  return fs::directory_iterator(path(name))->path();
}

}  // namespace halo::system_test
