// halo generate: streaming text from a model.
#include "halo/engine/generate.h"

#include <iostream>

#include "halo/cli/commands.h"
#include "halo/data/pack.h"
#include "halo/runtime/machine.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {
namespace {

struct Args {
  std::string model, prompt, device = "cpu", kernels = "fast";
  int64_t max_tokens = 128, seed = 0;
  SampleArgs sample;
};

void run(const Args& args) {
  at::NoGradGuard no_grad;
  RunRecipe where;
  where.device = args.device;
  where.kernels = args.kernels;
  const Machine machine = open_machine(where);
  const Model model =
      load_model(args.model, ParameterStore::Use::kFrozen, machine.compute, machine.device);
  const auto tokenizer_path = std::filesystem::path(args.model) / "tokenizer.json";
  const Tokenizer tokenizer(tokenizer_path);
  std::vector<int64_t> prompt = tokenizer.encode(args.prompt);
  if (prompt.empty()) throw_error("the prompt is empty");
  const auto begin = document_begin(tokenizer, tokenizer_path);
  if (begin && prompt.front() != *begin) prompt.insert(prompt.begin(), *begin);
  // Tokenizers may have tokens that were added without the model's knowing.
  for (const int64_t id : prompt) {
    if (id >= model.config.vocab_size)
      throw_error("the prompt holds '{}', token {}, for which the model has no row: its are {}",
                  tokenizer.token_bytes(id), id, model.config.vocab_size);
  }
  EngineOptions options;
  options.kernels = machine.kernels;
  Engine engine(std::make_shared<DecoderWeights>(model.weights), options);
  GenerateArgs generate_args;
  generate_args.max_tokens = args.max_tokens;
  generate_args.sample = args.sample;
  generate_args.seed = static_cast<uint64_t>(args.seed);
  generate_args.stop_ids = read_end_tokens(args.model, model.config);
  StreamDecoder stream(tokenizer);
  std::cout << args.prompt;
  generate(engine, {prompt}, generate_args, [&](const GenerateStep& step) {
    std::cout << stream.push(step.tokens.front()) << std::flush;
  });
  std::cout << stream.finish() << "\n";
}

}  // namespace

void add_generate(CLI::App& app) {
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand("generate", "Continue a text");
  command->add_option("model", args->model, "Hugging Face directory")->required();
  command->add_option("prompt", args->prompt, "text to continue")->required();
  command->add_option("--max-tokens", args->max_tokens, "new tokens at most");
  command->add_option("--temperature", args->sample.temperature, "0: greedy");
  command->add_option("--top-p", args->sample.top_p, "smallest set with this much probability");
  command->add_option("--top-k", args->sample.top_k, "most likely tokens only; 0: all");
  command->add_option("--seed", args->seed, "of the sampling");
  command->add_option("--device", args->device, "cpu | cuda");
  command->add_option("--kernels", args->kernels, "fast | reference");
  command->footer("Example: halo generate runs/demo/model \"It was\" --temperature 0.8");
  command->callback([args] { run(*args); });
}

}  // namespace halo
