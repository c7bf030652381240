#include "halo/engine/sequence_file.h"

#include <cstring>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/formats/safetensors.h"

namespace halo {
namespace {

constexpr const char* kFormat = "halo-sequence";
constexpr const char* kVersion = "1";

std::span<const std::byte> bytes_of(const at::Tensor& x) {
  return {static_cast<const std::byte*>(x.const_data_ptr()), x.nbytes()};
}

// What a layer has in the file, in their order: names and tensors of `state`.
std::vector<std::pair<std::string, at::Tensor*>> tensors_of(size_t layer, LayerState& state) {
  std::vector<std::pair<std::string, at::Tensor*>> out;
  const auto add = [&](const char* name, at::Tensor& tensor) {
    if (tensor.defined()) out.emplace_back(fmt::format("layers.{}.{}", layer, name), &tensor);
  };
  add("keys", state.keys);
  add("values", state.values);
  add("key_scales", state.key_scales);
  add("value_scales", state.value_scales);
  add("state", state.recurrent);
  return out;
}

// "int8", or the type that the model runs in.
std::string kv_type_of(const Engine& engine) {
  if (engine.options().kv_type == KvType::kInt8) return "int8";
  return engine.weights().embedding.value.scalar_type() == at::kBFloat16 ? "bfloat16" : "float32";
}

}  // namespace

void save_sequence(const std::filesystem::path& path, const Engine& engine, int64_t sequence,
                   std::span<const int64_t> tokens, const at::Tensor& logits,
                   const SequenceNote& note) {
  const at::NoGradGuard no_grad;
  const int64_t length = engine.length(sequence);
  HALO_CHECK(std::ssize(tokens) == length, "save_sequence: {} tokens of a sequence of {}",
             tokens.size(), length);
  const at::Tensor ids = at::tensor(tokens, at::kLong);
  const at::Tensor last = logits.defined() ? logits.cpu().contiguous() : at::empty({0}, at::kFloat);
  std::vector<TensorSpec> specs;
  const auto declare = [&](const std::string& name, const at::Tensor& like) {
    const at::Tensor none = at::empty({0}, at::TensorOptions(like.scalar_type()));
    specs.push_back({name, to_view(name, none).dtype, like.sizes().vec()});
  };
  declare("tokens", ids);
  declare("logits", last);
  const size_t layers = engine.weights().layers.size();
  for (size_t i = 0; i < layers; ++i) {
    LayerState shape = engine.empty_state(i, length);
    for (const auto& [name, tensor] : tensors_of(i, shape)) declare(name, *tensor);
  }
  SafetensorsWriter writer(path, specs,
                           {{"format", kFormat},
                            {"version", kVersion},
                            {"model", note.model},
                            {"kv_type", kv_type_of(engine)},
                            {"text", note.text}});
  writer.write(bytes_of(ids));
  writer.write(bytes_of(last));
  for (size_t i = 0; i < layers; ++i) {
    LayerState state = engine.state(sequence, i);
    for (const auto& [name, tensor] : tensors_of(i, state)) writer.write(bytes_of(*tensor));
  }
  writer.commit();
}

int64_t saved_tokens(const std::filesystem::path& path) {
  return SafetensorsFile(path).get("tokens").numel();
}

LoadedSequence load_sequence(const std::filesystem::path& path, Engine& engine,
                             const std::string& model) {
  const at::NoGradGuard no_grad;
  const SafetensorsFile file(path);
  const auto said = [&](const char* key) {
    const auto it = file.metadata().find(key);
    return it == file.metadata().end() ? std::string() : it->second;
  };
  if (said("format") != kFormat) throw_error("{}: not a saved sequence", path.string());
  if (said("version") != kVersion) {
    throw_error("{}: a saved sequence of version '{}'; this program reads {}", path.string(),
                said("version"), kVersion);
  }
  if (said("model") != model) {
    throw_error("{}: saved with another model's weights ({}, here {})", path.string(),
                said("model"), model);
  }
  if (const std::string type = said("kv_type"); !type.empty() && type != kv_type_of(engine)) {
    throw_error(
        "{}: its keys and values are {}, this run's are {}; give the --kv-type and --compute "
        "that it was saved with",
        path.string(), type, kv_type_of(engine));
  }
  const auto read = [&](const std::string& name, at::ScalarType type, at::IntArrayRef shape) {
    const TensorView view = file.get(name);
    at::Tensor tensor = at::empty(shape, type);
    if (view.shape != shape || view.dtype != to_view(name, tensor).dtype) {
      throw_error(
          "{}: '{}' is of another shape or type than this model's sequences have; run it "
          "with the --compute that it was saved with",
          path.string(), name);
    }
    if (!view.bytes.empty())
      std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    return tensor;
  };
  const int64_t length = file.get("tokens").numel();
  const at::Tensor ids = read("tokens", at::kLong, {length});
  const int64_t vocabulary = engine.weights().embedding.value.size(0);
  if (length == 0 || ids.min().item<int64_t>() < 0 || ids.max().item<int64_t>() >= vocabulary) {
    throw_error("{}: its tokens are none of the model's", path.string());
  }
  LoadedSequence out{OwnedSequence(engine, engine.create(length)), {}, {}, said("text")};
  const int64_t* first = ids.const_data_ptr<int64_t>();
  out.tokens.assign(first, first + length);
  const int64_t rows = file.get("logits").numel();
  const at::Tensor last = read("logits", at::kFloat, {rows == 0 ? 0 : vocabulary});
  if (rows > 0) out.logits = last.to(engine.weights().embedding.value.device());
  for (size_t i = 0; i < engine.weights().layers.size(); ++i) {
    LayerState state = engine.empty_state(i, length);
    for (const auto& [name, tensor] : tensors_of(i, state)) {
      *tensor = read(name, tensor->scalar_type(), tensor->sizes());
    }
    engine.set_state(out.sequence.id(), i, state);
  }
  return out;
}

}  // namespace halo
