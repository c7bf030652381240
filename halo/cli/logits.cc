// halo logits: outputs of a model, in fp32 by the reference kernels if not told otherwise, for
// comparison with other programs.
#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/cli/commands.h"
#include "halo/engine/generate.h"
#include "halo/formats/safetensors.h"
#include "halo/model/decoder.h"
#include "halo/runtime/machine.h"

namespace halo {
namespace {

struct LogitsArgs {
  std::string model, ids, out;
  int64_t generate = 0;
  MachineRecipe machine{.compute = at::kFloat, .kernels = Kernels::kReference};

  void settings(Settings& s) {
    s("generate", generate,
      {.help = "also continue prompt_ids greedily by so many tokens", .max = 1e6});
    s("machine", machine, {});
  }
};

// Numbers 0 .. count - 1.
at::Tensor read_ids(const SafetensorsFile& file, const std::string& name, int64_t count) {
  const at::Tensor ids = to_tensor(file.get(name));
  if (ids.dim() != 2 || ids.scalar_type() != at::kLong || ids.numel() == 0) {
    throw_error("{}: '{}' must be [batch, tokens] int64, and not empty", file.path().string(),
                name);
  }
  if (ids.min().item<int64_t>() < 0 || ids.max().item<int64_t>() >= count) {
    throw_error("{}: '{}' must be 0 to {}, and holds {} to {}", file.path().string(), name,
                count - 1, ids.min().item<int64_t>(), ids.max().item<int64_t>());
  }
  return ids;
}

std::vector<int64_t> row_offsets(int64_t rows, int64_t length) {
  std::vector<int64_t> offsets;
  for (int64_t b = 0; b <= rows; ++b) offsets.push_back(b * length);
  return offsets;
}

at::Tensor all_logits(const Model& model, const SafetensorsFile& file, const Machine& machine) {
  const at::Tensor ids = read_ids(file, "input_ids", model.config.vocab_size);
  const int64_t rows = ids.size(0), length = ids.size(1);
  Batch batch = make_batch(ids.flatten(), row_offsets(rows, length), machine.device);
  if (file.find("position_ids")) {
    constexpr int64_t kMostPositions = int64_t{1} << 40;
    const at::Tensor positions = read_ids(file, "position_ids", kMostPositions);
    if (positions.size(1) != length || (positions.size(0) != rows && positions.size(0) != 1)) {
      throw_error("{}: 'position_ids' must be [{} or 1, {}], as 'input_ids' is",
                  file.path().string(), rows, length);
    }
    batch = make_batch(ids.flatten(), row_offsets(rows, length),
                       positions.expand({rows, length}).flatten(), machine.device);
  }
  batch.kernels = machine.kernels;
  return logits(model.weights, decode(model.weights, batch), machine.kernels)
      .view({rows, length, -1});
}

struct Greedy {
  at::Tensor ids, logits;  // [B, n], [B, n, V]
};

Greedy greedy(const Model& model, const SafetensorsFile& file, int64_t count,
              const Machine& machine) {
  const at::Tensor prompts = read_ids(file, "prompt_ids", model.config.vocab_size);
  const int64_t rows = prompts.size(0), vocabulary = model.config.vocab_size;
  Greedy out{at::zeros({rows, count}, at::kLong), at::zeros({rows, count, vocabulary})};
  std::vector<Request> requests;
  for (int64_t b = 0; b < rows; ++b) {
    const int64_t* row = prompts[b].data_ptr<int64_t>();
    Request request{.prompt = {row, row + prompts.size(1)}, .max_tokens = count};
    request.on_logits = [to = out.logits[b].data_ptr<float>(),
                         vocabulary](std::span<const float> values) mutable {
      std::ranges::copy(values, to);
      to += vocabulary;
    };
    requests.push_back(std::move(request));
  }
  Scheduler scheduler(std::make_shared<DecoderWeights>(model.weights), scheduler_options(machine));
  const std::vector<Answer> answers = answer(scheduler, std::move(requests));
  for (int64_t b = 0; b < rows; ++b) {
    out.ids[b].copy_(at::tensor(answers[static_cast<size_t>(b)].tokens, at::kLong));
  }
  return out;
}

void run(const LogitsArgs& args) {
  at::NoGradGuard no_grad;
  const Progress phase("logits");
  AtomicFile{args.out};  // refused now, not when all is done
  const Machine machine = open_machine(args.machine);
  const Model model =
      load_model(args.model, ParameterStore::Use::kFrozen, machine.compute, machine.device);
  const SafetensorsFile file(args.ids);
  std::vector<std::pair<std::string, at::Tensor>> results;
  if (file.find("input_ids")) results.emplace_back("logits", all_logits(model, file, machine));
  if (args.generate > 0) {
    const Greedy out = greedy(model, file, args.generate, machine);
    results.emplace_back("greedy_ids", out.ids);
    results.emplace_back("greedy_logits", out.logits);
  }
  if (results.empty()) throw_error("{}: there is no 'input_ids' and no --generate", args.ids);
  std::vector<TensorView> views;
  for (auto& [name, tensor] : results) {
    tensor = tensor.to(at::kCPU, tensor.is_floating_point() ? at::kFloat : at::kLong).contiguous();
    views.push_back(to_view(name, tensor));
  }
  write_safetensors(args.out, views);
}

}  // namespace

void add_logits(CLI::App& app) {
  auto args = std::make_shared<LogitsArgs>();
  CLI::App* command = app.add_subcommand(
      "logits", "Logits of a model for comparison, exact ones if not told otherwise");
  command->add_option("model", args->model, "Hugging Face directory")->required();
  command
      ->add_option("--ids", args->ids, "safetensors file with input_ids, position_ids, prompt_ids")
      ->required();
  command->add_option("--out", args->out, "safetensors file to write")->required();
  add_options(*command, *args);
  command->footer("Example: halo logits MODEL --ids in.safetensors --out out.safetensors");
  command->callback([args] { run(*args); });
}

}  // namespace halo
