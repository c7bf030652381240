// halo generate: streaming text from a model.
#include "halo/engine/generate.h"

#include <iostream>

#include "halo/base/options.h"
#include "halo/cli/commands.h"
#include "halo/data/pack.h"
#include "halo/runtime/machine.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {
namespace {

struct Args {
  std::string model, prompt;
  GenerateArgs generate;
  MachineRecipe machine;
};

void run(const Args& args) {
  at::NoGradGuard no_grad;
  const Machine machine = open_machine(args.machine);
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
  GenerateArgs generate_args = args.generate;
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
  add_options(*command, args->generate);
  add_options(*command, args->machine);
  command->footer("Example: halo generate runs/demo/model \"It was\" --temperature 0.8");
  command->callback([args] { run(*args); });
}

}  // namespace halo
