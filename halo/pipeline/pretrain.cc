#include "halo/pipeline/pretrain.h"

#include <cmath>
#include <numeric>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/folder_lock.h"
#include "halo/base/progress.h"
#include "halo/base/random.h"
#include "halo/data/pack.h"
#include "halo/data/readers.h"
#include "halo/pipeline/recipe.h"
#include "halo/pipeline/run_folder.h"
#include "halo/runtime/ranks.h"
#include "halo/stages/losses.h"
#include "halo/train/loop.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

ModelConfig teacher_config(const ArchitectureRecipe& r, int64_t vocab_size, int64_t length,
                           int64_t end_token) {
  ModelConfig c;
  c.vocab_size = vocab_size;
  c.hidden_size = r.hidden_size;
  c.intermediate_size = r.intermediate_size;
  c.num_layers = r.num_layers;
  c.num_heads = c.lightning_heads = r.num_heads;
  c.num_kv_heads = c.lightning_kv_heads = r.num_kv_heads;
  c.head_dim = c.lightning_head_dim = r.head_dim;
  c.rope_theta = r.rope_theta;
  c.tie_word_embeddings = true;
  c.max_position_embeddings = length;
  c.eos_token_ids = {end_token};
  c.mixer_types.assign(static_cast<size_t>(r.num_layers), MixerType::kAttention);
  return c;
}

// Matrices normal with standard deviation 0.02, those that write into the residual stream smaller
// by sqrt(2 L) so that its variance does not grow with depth; norms 1.
void initialise(ParameterStore& store, const ModelConfig& config, uint64_t seed) {
  at::NoGradGuard no_grad;
  const double depth = std::sqrt(2.0 * double(config.num_layers));
  for (const ParameterSpec& spec : store.specs()) {
    if (spec.shape.size() == 1) {
      store.write(spec.name, at::ones(spec.shape));
      continue;
    }
    const bool writes =
        spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
    const Random random(seed, "pretrain.init." + spec.name);
    at::Tensor values = at::empty(spec.shape, at::kFloat);
    float* data = values.data_ptr<float>();
    for (int64_t i = 0; i < values.numel(); ++i) {
      data[i] = static_cast<float>(random.normal(i) * 0.02 / (writes ? depth : 1));
    }
    store.write(spec.name, values);
  }
}

// Trains the tokenizer on the first `training_bytes` of the text, if it is not there.
void make_tokenizer(const PretrainRecipe& recipe, const fs::path& path) {
  if (fs::exists(path)) return;
  const Progress phase("training the tokenizer");
  std::vector<std::string> texts;
  int64_t bytes = 0;
  read_documents({recipe.text.begin(), recipe.text.end()}, [&](Document document) {
    if (bytes >= recipe.tokenizer.training_bytes) return;
    bytes += static_cast<int64_t>(document.text.size());
    texts.push_back(std::move(document.text));
  });
  fs::create_directories(path.parent_path());
  write_file(path, train_bpe(texts, recipe.tokenizer.vocab_size, {"<|endoftext|>"}));
}

// A curriculum seen by the loop as rows of one length: each of them is several shorter rows.
class Curriculum {
 public:
  Curriculum(const PretrainRecipe& recipe, const DataRecipe& data, const Tokenizer& tokenizer,
             const fs::path& tokenizer_path)
      : length_(recipe.train.sequence_length) {
    const std::string tokenizer_hash = hash_file(tokenizer_path);
    const std::optional<int64_t> begin = document_begin(tokenizer, tokenizer_path);
    double total = 0, done = 0;
    for (double share : recipe.shares) total += share;
    for (size_t i = 0; i < recipe.lengths.size(); ++i) {
      done += recipe.shares[i];
      last_step_.push_back(std::llround(done / total * double(recipe.train.steps())));
      phases_.emplace_back(
          data, tokenizer, tokenizer_hash,
          LoaderPlan{recipe.lengths[i], recipe.train.tokens_per_step / recipe.lengths[i],
                     static_cast<uint64_t>(recipe.run.seed), begin});
    }
  }

  TrainBatch step(int64_t step, int64_t first_row, int64_t rows) const {
    size_t phase = 0;
    while (phase + 1 < phases_.size() && step >= last_step_[phase]) ++phase;
    const int64_t factor = length_ / phases_[phase].plan().sequence_length;
    TrainBatch batch = phases_[phase].step(step, first_row * factor, rows * factor);
    batch.rows = rows;
    return batch;
  }

 private:
  int64_t length_;
  std::vector<int64_t> last_step_;
  std::vector<Loader> phases_;
};

}  // namespace

PretrainRecipe::PretrainRecipe() {
  train.tokens = 110'000'000;
  train.sequence_length = 1024;
  train.tokens_per_step = 32'768;
  train.learning_rate = 2e-3;
  train.min_learning_rate = 2e-5;
  train.weight_decay = 0.1;
  train.warmup_steps = 100;
  data.needle_share = 0.45;
  data.answer_weight = 0.5;
}

PretrainRecipe read_pretrain_recipe(const std::filesystem::path& path,
                                    const std::vector<std::string>& set) {
  PretrainRecipe r = read_settings_file<PretrainRecipe>(path, set);
  check_recipe(r.train, "train", num_ranks(r.run));
  if (r.lengths.size() != r.shares.size()) {
    throw_error("{}: lengths has {} entries, shares {}", path.string(), r.lengths.size(),
                r.shares.size());
  }
  for (int64_t length : r.lengths) {
    if (r.train.sequence_length % length != 0) {
      throw_error("{}: length {} does not divide train.sequence_length {}", path.string(), length,
                  r.train.sequence_length);
    }
  }
  if (std::accumulate(r.shares.begin(), r.shares.end(), 0.0) <= 0) {
    throw_error("{}: shares must have a sum above 0", path.string());
  }
  if (r.text.empty()) check_recipe(r.data);
  // What no config.json may say, no teacher may be.
  const ModelConfig config =
      teacher_config(r.model, r.tokenizer.vocab_size, r.train.sequence_length, /*end_token=*/0);
  parse_model_config(model_config_to_json(config), path.string() + ": model");
  return r;
}

void pretrain(const PretrainRecipe& recipe, const fs::path& run, Communicator& ranks) {
  std::optional<FolderLock> lock;
  if (ranks.is_first()) lock.emplace(run);
  const Machine machine = open_machine(run_of_rank(recipe.run, ranks));
  DataRecipe data = recipe.data;
  const fs::path tokenizer_path = run / "tokenizer" / "tokenizer.json";
  if (!recipe.text.empty()) {
    const fs::path shards = run / "data";
    if (ranks.is_first()) {
      make_tokenizer(recipe, tokenizer_path);
      if (!fs::exists(shards)) {
        pack({recipe.text.begin(), recipe.text.end()}, tokenizer_path, shards, {});
      }
    }
    data.shards = {shards.string()};
  }
  ranks.wait();
  const Tokenizer tokenizer(tokenizer_path);
  const ModelConfig config =
      teacher_config(recipe.model, tokenizer.vocab_size(), recipe.train.sequence_length,
                     tokenizer.document_end(data.document_end));
  ParameterStore store(decoder_parameters(config), ParameterStore::Use::kTrained, machine.compute,
                       machine.device, {&ranks, recipe.run.shard});
  initialise(store, config, static_cast<uint64_t>(recipe.run.seed));
  const DecoderWeights weights = bind_decoder(config, store);
  const Curriculum curriculum(recipe, data, tokenizer, tokenizer_path);

  TrainJob job;
  job.stage = job.title = "pretrain";
  job.directory = run / "pretrain";
  job.recipe = recipe.train;
  job.seed = static_cast<uint64_t>(recipe.run.seed);
  job.kernels = machine.kernels;
  job.data_id = fmt::format("{}, lengths {}, shares {}", data_hash(data),
                            fmt::join(recipe.lengths, " "), fmt::join(recipe.shares, " "));
  job.store = &store;
  job.data = [&](int64_t step, int64_t row, int64_t rows) {
    return curriculum.step(step, row, rows);
  };
  job.count = count_targets;
  job.forward_backward = cross_entropy_step(weights, machine);
  job.async_checkpoints = recipe.run.async_checkpoints;
  job.model.write_side_files = [&](const fs::path& directory) {
    write_model_config(directory, config, DType::kF32);
    copy_side_files(tokenizer_path.parent_path(), directory);
  };
  train(job);
  save_model(run / "model", config, store, DType::kBF16);
  if (ranks.is_first()) copy_side_files(tokenizer_path.parent_path(), run / "model");
}

}  // namespace halo
