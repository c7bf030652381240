#include "halo/exchange/import.h"

#include <algorithm>
#include <functional>
#include <map>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/exchange/gguf_model.h"
#include "halo/exchange/hypenet_layouts.h"
#include "halo/formats/weight_names.h"
#include "halo/model/decoder.h"
#include "halo/model/weight_values.h"
#include "halo/stages/transfer.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPieceElements = 1 << 20;  // at a time in memory

using Sink = std::function<void(std::span<const std::byte>)>;

// A tensor of the model to be written, and how its bytes come about.
struct OutTensor {
  TensorSpec spec;
  std::function<void(const Sink&)> produce;
};

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return to_view("", tensor).bytes;
}

void write_as(const at::Tensor& values, DType dtype, const std::string& name, const Sink& sink) {
  const at::Tensor out = values.to(to_scalar_type(dtype)).contiguous();
  if (dtype == DType::kF16 && !at::isfinite(out).all().item<bool>() &&
      at::isfinite(values).all().item<bool>())
    throw_error("tensor '{}' has values beyond float16; use --dtype bfloat16", name);
  sink(bytes_of(out));
}

// The stored tensor, in another type or times a factor where asked for.
OutTensor converted(const TensorView& view, DType dtype, double factor) {
  OutTensor out{{view.name, dtype, view.shape}, {}};
  if (dtype == view.dtype && factor == 1) {
    out.produce = [view](const Sink& sink) { sink(view.bytes); };
    return out;
  }
  out.produce = [view, dtype, factor](const Sink& sink) {
    const auto stored = at::from_blob(const_cast<std::byte*>(view.bytes.data()), {view.numel()},
                                      at::TensorOptions().dtype(to_scalar_type(view.dtype)));
    for (int64_t at = 0; at < view.numel(); at += kPieceElements) {
      const at::Tensor piece = stored.narrow(0, at, std::min(kPieceElements, view.numel() - at));
      write_as(factor == 1 ? piece : piece * factor, dtype, view.name, sink);
    }
  };
  return out;
}

OutTensor dequantized(const GgufWeight& weight, DType dtype) {
  return {{weight.name, dtype, weight.shape}, [&weight, dtype](const Sink& sink) {
            const int64_t length = weight.tensor->row_length(), rows = weight.tensor->num_rows();
            const int64_t step = std::max<int64_t>(1, kPieceElements / length);
            for (int64_t row = 0; row < rows; row += step) {
              const int64_t count = std::min(step, rows - row);
              at::Tensor piece = at::empty({count * length});
              read_rows(weight, row, {piece.data_ptr<float>(), size_t(piece.numel())});
              write_as(piece, dtype, weight.name, sink);
            }
          }};
}

// The tensors must be those of the configuration, as ParameterStore::load has it.
void check_tensors(const std::vector<OutTensor>& tensors, const ModelConfig& config,
                   const std::string& from) {
  std::map<std::string, std::vector<int64_t>> wanted;
  for (const ParameterSpec& spec : decoder_parameters(config)) wanted[spec.name] = spec.shape;
  for (const OutTensor& tensor : tensors) {
    const auto it = wanted.find(tensor.spec.name);
    if (it == wanted.end())
      throw_error("{}: tensor '{}' belongs to nothing in this model, or is there twice", from,
                  tensor.spec.name);
    if (it->second != tensor.spec.shape)
      throw_error("{}: tensor '{}' has shape [{}], the configuration asks for [{}]", from,
                  tensor.spec.name, fmt::join(tensor.spec.shape, ", "),
                  fmt::join(it->second, ", "));
    wanted.erase(it);
  }
  if (!wanted.empty()) throw_error("{}: tensor '{}' is missing", from, wanted.begin()->first);
}

void write_model(const fs::path& out, ModelConfig config, std::vector<OutTensor> tensors,
                 const std::string& from) {
  check_tensors(tensors, config, from);
  std::ranges::sort(tensors, {}, [](const OutTensor& t) { return t.spec.name; });
  std::vector<TensorSpec> specs;
  for (const OutTensor& tensor : tensors) specs.push_back(tensor.spec);
  SafetensorsWriter writer(out / "model.safetensors", specs);
  for (const OutTensor& tensor : tensors)
    tensor.produce([&](std::span<const std::byte> bytes) { writer.write(bytes); });
  writer.commit();
  const WeightFiles written(out);
  for (const TensorView& tensor : written.tensors()) check_values(tensor, from);
  config.other.erase("auto_map");  // names code that is not copied
  write_model_config(out, config, specs.front().dtype);
}

json::object import_gguf(const ImportArgs& args, const fs::path& out) {
  const GgufFile file(args.source);
  const std::string name = args.source.string();
  const GgufModel model(file.contents(), name);
  const DType dtype = args.dtype.value_or(DType::kF32);
  std::vector<OutTensor> tensors;
  for (const GgufWeight& weight : model.weights()) tensors.push_back(dequantized(weight, dtype));
  const GgufTokenizer tokenizer = gguf_tokenizer(file.contents(), name);
  write_model(out, model.config(), tensors, args.source.string());
  write_file(out / "tokenizer.json", json::serialize(tokenizer.tokenizer));
  write_json(out / "tokenizer_config.json", tokenizer.tokenizer_config);
  write_json(out / "generation_config.json", tokenizer.generation_config);
  return {{"layout", "gguf"},
          {"config", args.source.string()},
          {"tensors", tensors.size()},
          {"dropped", file.contents().tensors.size() - tensors.size()},
          {"output_gates", nullptr}};
}

fs::path find_config(const ImportArgs& args) {
  if (!args.config.empty()) return args.config;
  const fs::path folder = fs::absolute(args.source).lexically_normal();
  for (const fs::path& place : {folder, (folder / "").parent_path().parent_path()})
    if (fs::exists(place / "config.json")) return place / "config.json";
  throw_error("{}: there is no config.json in it or above it; name one with --config",
              args.source.string());
}

// The gates that attention layers of `config` have and stage 1 lacks.
OutTensor new_gate(const ModelConfig& config, int64_t layer, DType dtype, TransferInit init,
                   uint64_t seed) {
  const std::string name = fmt::format("model.layers.{}.self_attn.o_gate.weight", layer);
  const std::vector<int64_t> shape = {config.num_heads * config.head_dim, config.hidden_size};
  return {{name, dtype, shape}, [=](const Sink& sink) {
            write_as(initial_output_gate(shape, layer, init, seed), dtype, name, sink);
          }};
}

json::object import_directory(const ImportArgs& args, const fs::path& out) {
  const fs::path config_path = find_config(args);
  const json::value object = read_json(config_path);
  if (!object.is_object()) throw_error("{}: expected an object", config_path.string());
  ModelConfig config = parse_model_config(object.get_object(), config_path.string());
  if (config.int8_weights)
    throw_error("{}: its weights are int8; import the model that it was made of",
                args.source.string());
  const WeightFiles files(args.source);
  const std::vector<TensorView>& all = files.tensors();
  const HypenetLayout layout = find_layout(all);
  std::vector<TensorView> student = student_tensors(all, layout, config, args.source.string());
  if (has_own_head(student)) config.tie_word_embeddings = false;
  student = model_tensors(std::move(student), config);

  const bool gates_missing = layout == HypenetLayout::kStage1 && config.attn_use_output_gate;
  std::vector<OutTensor> tensors;
  for (const TensorView& view : student) {
    bool doubled = false;
    for (const int64_t layer : config.attention_layers())
      doubled |= gates_missing && args.init == TransferInit::kIdentity &&
                 view.name == fmt::format("model.layers.{}.self_attn.o_proj.weight", layer);
    tensors.push_back(converted(view, args.dtype.value_or(view.dtype), doubled ? 2 : 1));
  }
  if (student.empty()) throw_error("{}: there are no tensors", args.source.string());
  const size_t taken = tensors.size();
  if (gates_missing)
    for (const int64_t layer : config.attention_layers())
      tensors.push_back(new_gate(config, layer, tensors.front().spec.dtype, args.init,
                                 static_cast<uint64_t>(args.seed)));

  write_model(out, config, tensors, args.source.string());
  copy_side_files(args.source, out);
  static constexpr const char* kLayoutNames[] = {"final", "stage 1", "stage 2"};
  return {{"layout", kLayoutNames[static_cast<int>(layout)]},
          {"config", config_path.string()},
          {"tensors", tensors.size()},
          {"dropped", all.size() - taken},
          {"output_gates",
           gates_missing ? json::value(word_of(kGateInits, args.init)) : json::value(nullptr)}};
}

}  // namespace

json::object import_model(const ImportArgs& args) {
  at::NoGradGuard no_grad;
  if (fs::exists(args.out) && fs::exists(args.source) && fs::equivalent(args.out, args.source))
    throw_error("{}: --out must be another folder", args.out.string());
  json::object done;
  commit_new_directory(args.out, [&](const fs::path& out) {
    done = fs::is_directory(args.source) ? import_directory(args, out) : import_gguf(args, out);
  });
  return done;
}

}  // namespace halo
