// Decoding at given contexts and batch sizes, beside the time that reading its bytes takes.
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/bench/bench.h"
#include "halo/bench/random_model.h"
#include "halo/bench/step_profile.h"
#include "halo/engine/scheduler.h"
#include "halo/model/decode_step.h"
#include "halo/runtime/device_event.h"
#include "halo/runtime/graph.h"

namespace halo {
namespace {

constexpr int64_t kBlockSize = 256;
constexpr int64_t kChunk = 16384;  // tokens of a prompt in one call

double median(std::vector<double> seconds) {
  std::nth_element(seconds.begin(), seconds.begin() + std::ssize(seconds) / 2, seconds.end());
  return seconds[seconds.size() / 2];
}

// Of `repeats` runs of `work`, after one that is not timed.
double median_seconds(at::Device device, int64_t repeats, const std::function<void()>& work) {
  work();
  std::vector<DeviceEvent> moments{DeviceEvent(device)};
  for (int64_t i = 0; i < repeats; ++i) {
    work();
    moments.emplace_back(device);
  }
  moments.back().wait();
  std::vector<double> seconds;
  for (int64_t i = 0; i < repeats; ++i) seconds.push_back(moments[i + 1].seconds_since(moments[i]));
  return median(std::move(seconds));
}

double mean_seconds(at::Device device, int64_t repeats, const std::function<void()>& work) {
  const DeviceEvent begin(device);
  for (int64_t i = 0; i < repeats; ++i) work();
  const DeviceEvent end(device);
  end.wait();
  return end.seconds_since(begin) / static_cast<double>(repeats);
}

double measure_read_rate(at::Device device) {
  const at::Tensor x =
      at::ones({int64_t{1} << (device.is_cuda() ? 30 : 28)}, at::TensorOptions().device(device));
  return static_cast<double>(x.nbytes()) / median_seconds(device, 9, [&] { x.sum(); });
}

// Bytes of weights that a step reads: all but an embedding that is not the head.
double weight_bytes(const ParameterStore& store, const ModelConfig& config) {
  size_t bytes = 0;
  for (const ParameterSpec& spec : store.specs()) {
    if (spec.name == "model.embed_tokens.weight" && !config.tie_word_embeddings) continue;
    const Weight weight = store.weight(spec.name);
    bytes += weight.value.nbytes() + (weight.scale.defined() ? weight.scale.nbytes() : 0);
  }
  return static_cast<double>(bytes);
}

// Keys and values that a step reads, states that it reads and writes; `bytes` are of one token.
double state_bytes_of_step(const StateBytes& bytes, int64_t context, int64_t batch) {
  return static_cast<double>(batch) *
         (static_cast<double>(context * bytes.block) + 2.0 * static_cast<double>(bytes.slot));
}

struct InferSeconds {
  std::optional<double> prefill;
  double token = 0;
  json::object profile = {};  // of a prompt's last chunk, on a GPU
};

// Keys, values or states as a past could have left them; scales too.
void fill_past(at::Tensor& x) {
  if (!x.defined()) return;
  if (x.scalar_type() == at::kChar) {
    x.random_(-127, 128);
  } else {
    x.normal_();
  }
}

// Where steps are not recorded: what the engine runs.
InferSeconds time_engine(const Model& model, const Machine& machine, const InferBenchArgs& args,
                         int64_t context, int64_t batch) {
  Engine engine(std::make_shared<const DecoderWeights>(model.weights),
                {.kernels = kernels_for(machine, args.engine),
                 .block_size = kBlockSize,
                 .max_batch_tokens = kChunk,
                 .kv_type = args.engine.kv_type});
  InferSeconds out;
  const at::Tensor random = at::randint(model.config.vocab_size, {context}, at::kLong);
  const std::vector<int64_t> tokens(random.const_data_ptr<int64_t>(),
                                    random.const_data_ptr<int64_t>() + context);
  if (args.prefill) {
    {  // sets up the libraries
      const OwnedSequence first(engine);
      engine.advance({first.id()}, {std::vector(static_cast<size_t>(std::min(kBlockSize, context)),
                                                tokens.front())});
    }
    out.prefill = mean_seconds(machine.device, args.prompts, [&] {
      const OwnedSequence sequence(engine);
      engine.advance({sequence.id()}, {tokens});
    });
  }
  std::vector<int64_t> ids;
  for (int64_t s = 0; s < batch; ++s) ids.push_back(engine.create(context));
  for (size_t i = 0; i < model.weights.layers.size(); ++i) {
    LayerState past = engine.empty_state(i, context);
    for (at::Tensor* tensor :
         {&past.keys, &past.values, &past.key_scales, &past.value_scales, &past.recurrent}) {
      if (!tensor->defined()) continue;
      *tensor = at::empty(tensor->sizes(), tensor->options().device(at::kCPU));
      fill_past(*tensor);
    }
    for (const int64_t id : ids) engine.set_state(id, i, past);
  }
  const std::vector<std::vector<int64_t>> next(static_cast<size_t>(batch), {tokens[0]});
  out.token = median_seconds(machine.device, args.steps, [&] { engine.advance(ids, next); });
  return out;
}

// Where they are: one batch of sequences of one length, and its steps.
class Decoding {
 public:
  Decoding(const Model& model, const Machine& machine, const InferBenchArgs& args, int64_t context,
           int64_t batch);

  // Seconds for the first sequence's context, on average of so many times; it is then its past.
  double prefill(int64_t prompts);
  // Where the time of its last chunk goes.
  json::object profile_prefill();
  // Seconds a step.
  double decode(int64_t steps);

 private:
  void feed(int64_t begin, int64_t end);  // tokens of the first sequence
  at::Tensor step();

  const Model& model_;
  const Machine& machine_;
  const int64_t context_, batch_, blocks_;  // blocks of a sequence
  std::vector<LayerState> layers_;
  DecodeState state_;
};

Decoding::Decoding(const Model& model, const Machine& machine, const InferBenchArgs& args,
                   int64_t context, int64_t batch)
    : model_(model),
      machine_(machine),
      context_(context),
      batch_(batch),
      blocks_((context + 2 * args.steps + 4) / kBlockSize + 1),
      layers_(model.weights.layers.size()),
      state_(make_decode_state(model.weights, batch, blocks_)) {
  const auto options = at::TensorOptions().device(machine.device);
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (const auto* a = std::get_if<AttentionWeights>(&model.weights.layers[i].mixer)) {
      const bool int8 = args.engine.kv_type == KvType::kInt8;
      layers_[i].keys = at::empty({batch * blocks_, kBlockSize, a->kv_heads, a->head_dim},
                                  options.dtype(int8 ? at::kChar : machine.compute));
      layers_[i].values = at::empty_like(layers_[i].keys);
      if (int8) {
        layers_[i].key_scales =
            at::empty({batch * blocks_, a->kv_heads, kBlockSize}, options.dtype(at::kFloat));
        layers_[i].value_scales = at::empty_like(layers_[i].key_scales);
      }
    } else {
      const auto& l = std::get<LightningWeights>(model.weights.layers[i].mixer);
      layers_[i].recurrent =
          at::zeros({batch, l.heads, l.head_dim, l.head_dim}, options.dtype(at::kFloat));
    }
  }
  for (LayerState& layer : layers_) {
    for (at::Tensor* tensor :
         {&layer.keys, &layer.values, &layer.key_scales, &layer.value_scales, &layer.recurrent}) {
      fill_past(*tensor);
    }
  }
  state_.block_table.copy_(at::arange(batch * blocks_, at::kInt).view({batch, blocks_}));
  state_.slots.copy_(at::arange(batch, at::kLong));
  state_.positions.fill_(context);
  state_.lengths.fill_(context + 1);
}

void Decoding::feed(int64_t begin, int64_t end) {
  const at::Tensor tokens =
      at::randint(model_.config.vocab_size, {end - begin}, at::TensorOptions(at::kLong));
  Batch batch =
      make_batch(tokens, {0, end - begin}, at::arange(begin, end, at::kLong), machine_.device);
  batch.kernels = machine_.kernels;
  batch.state = &layers_;
  batch.block_table = at::arange(blocks_, at::kLong).unsqueeze(0);
  batch.lengths = {end};
  batch.slots = state_.slots.narrow(0, 0, 1);
  const at::Tensor hidden = ::halo::decode(model_.weights, batch);
  if (end == context_) logits(model_.weights, hidden.slice(0, -1), machine_.kernels);
}

double Decoding::prefill(int64_t prompts) {
  const at::NoGradGuard no_grad;
  // Sets up the libraries, for all shapes.
  feed(0, std::min(kChunk, context_));
  if (context_ > kChunk) feed(context_ - 1 - (context_ - 1) % kChunk, context_);
  return mean_seconds(machine_.device, prompts, [&] {
    for (LayerState& layer : layers_) {
      if (layer.recurrent.defined()) layer.recurrent.zero_();
    }
    for (int64_t at = 0; at < context_; at += kChunk) feed(at, std::min(at + kChunk, context_));
  });
}

json::object Decoding::profile_prefill() {
  const at::NoGradGuard no_grad;
  return profile_step([&] { feed(context_ - 1 - (context_ - 1) % kChunk, context_); });
}

// A step, and what makes it the next one's input: all on the device.
at::Tensor Decoding::step() {
  const at::Tensor out = decode_step(model_.weights, state_, layers_, machine_.kernels);
  state_.tokens.copy_(out.argmax(1));
  state_.positions.add_(1);
  state_.lengths.add_(1);
  return out;
}

double Decoding::decode(int64_t steps) {
  const at::NoGradGuard no_grad;
  step();
  const GraphMemory memory;
  const CudaGraph graph(machine_.device, memory, [&] { step(); });
  return median_seconds(machine_.device, steps, [&] { graph.launch(); });
}

InferSeconds time_steps(const Model& model, const Machine& machine, const InferBenchArgs& args,
                        int64_t context, int64_t batch) {
  if (!can_record_step(model.weights, kBlockSize, args.engine.kv_type == KvType::kInt8)) {
    return time_engine(model, machine, args, context, batch);
  }
  Decoding decoding(model, machine, args, context, batch);
  InferSeconds out;
  if (args.prefill) {
    out.prefill = decoding.prefill(args.prompts);
    if (machine.device.is_cuda()) out.profile = decoding.profile_prefill();
  }
  out.token = decoding.decode(args.steps);
  return out;
}

}  // namespace

json::object bench_infer(const InferBenchArgs& args) {
  const at::NoGradGuard no_grad;
  if (args.config.empty() == args.model.empty()) {
    throw_error("bench infer: give either a model directory or --config");
  }
  const Machine machine = open_machine(args.machine);
  kernels_for(machine, args.engine);  // refused now, not once all is loaded
  at::manual_seed(1);
  const Model model =
      args.model.empty()
          ? random_model(read_config_file(args.config), ParameterStore::Use::kFrozen, machine)
          : load_model(args.model, ParameterStore::Use::kFrozen, machine.compute, machine.device);
  const double rate = measure_read_rate(machine.device);
  const double weights = weight_bytes(*model.store, model.config);
  const StateBytes bytes = state_bytes(model.weights, /*block_size=*/1, args.engine.kv_type);
  json::array results;
  for (const int64_t context : args.contexts) {
    for (const int64_t batch : args.batches) {
      const InferSeconds measured = time_steps(model, machine, args, context, batch);
      const double seconds = measured.token;
      const double floor = (weights + state_bytes_of_step(bytes, context, batch)) / rate;
      json::object result{{"context", context}, {"batch", batch}, {"prefill_seconds", nullptr}};
      if (measured.prefill) result["prefill_seconds"] = *measured.prefill;
      if (!measured.profile.empty()) result["prefill_profile"] = measured.profile;
      result["token_seconds"] = seconds;
      result["floor_seconds"] = floor;
      result["share_of_floor"] = floor / seconds;
      result["tokens_per_second"] = static_cast<double>(batch) / seconds;
      result["memory_bytes"] = peak_memory_bytes(machine);
      results.push_back(std::move(result));
    }
  }
  return {{"device", machine.device_name},
          {"read_bytes_per_second", rate},
          {"weight_bytes", weights},
          {"token_bytes", bytes.block},
          {"invariant", args.engine.invariant},
          {"results", std::move(results)}};
}

}  // namespace halo
