#include "halo/pipeline/synthesize.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/base/random.h"
#include "halo/data/needle.h"
#include "halo/data/pack.h"
#include "halo/engine/generate.h"
#include "halo/runtime/machine.h"

namespace halo {
namespace {

// A Transformer trained on cut documents never saw a first token with something before it, so a
// document cannot be asked for with an end token: its first token is drawn here.
std::vector<int64_t> first_tokens(const Tokenizer& tokenizer) {
  std::vector<int64_t> out;
  for (int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string bytes = tokenizer.token_bytes(id);
    if (bytes.size() > 1 && bytes[0] >= 'A' && bytes[0] <= 'Z') out.push_back(id);
  }
  if (out.empty()) throw_error("the tokenizer has no token that begins with a capital letter");
  return out;
}

}  // namespace

json::object synthesize(const SynthesizeArgs& args) {
  at::NoGradGuard no_grad;
  const Machine machine = open_machine(args.machine);
  const Model teacher =
      load_model(args.teacher, ParameterStore::Use::kFrozen, machine.compute, machine.device);
  const std::filesystem::path tokenizer_path =
      std::filesystem::path(args.teacher) / "tokenizer.json";
  const Tokenizer tokenizer(tokenizer_path);
  const int64_t end = tokenizer.document_end();
  const std::vector<int64_t> first = first_tokens(tokenizer);
  EngineOptions options;
  options.kernels = machine.kernels;
  Engine engine(std::make_shared<DecoderWeights>(teacher.weights), options);

  const json::object provenance{
      {"made_by", args.command},
      {"teacher_weights", hash_file(std::filesystem::path(args.teacher) / "model.safetensors")}};
  ShardFolderWriter writer(args.out, hash_file(tokenizer_path), tokenizer.vocab_size(),
                           json::serialize(provenance), int64_t{1} << 26);
  const Random random(static_cast<uint64_t>(args.seed), "synthesize.first");
  GenerateArgs generate_args;
  generate_args.max_tokens = args.length - 2;  // the first token and the end token are ours
  generate_args.sample = args.sample;
  generate_args.stop_ids = {end};
  generate_args.seed = args.seed;
  generate_args.max_running = args.batch;
  Progress progress("synthesize", args.tokens);
  const NeedleWriter needles(tokenizer);
  int64_t tokens = 0, documents = 0, dropped = 0;
  while (tokens < args.tokens) {
    std::vector<std::vector<int64_t>> prompts;
    for (int64_t i = 0; i < args.batch; ++i) {
      prompts.push_back({first[random.below(static_cast<uint64_t>(documents + i),
                                            static_cast<int64_t>(first.size()))]});
    }
    generate_args.first_stream = documents;
    const auto continuations = generate(engine, prompts, generate_args);
    for (size_t i = 0; i < prompts.size(); ++i) {
      std::vector<int64_t> document = prompts[i];
      document.insert(document.end(), continuations[i].begin(), continuations[i].end());
      if (document.back() != end) document.push_back(end);
      tokens += static_cast<int64_t>(document.size());
      if (needles.mentions_needle(document)) {
        ++dropped;
      } else {
        writer.add_document(document);
      }
    }
    documents += args.batch;
    progress.update(std::min(tokens, args.tokens), fmt::format("{} documents", documents));
  }
  writer.finish();
  progress.finish(fmt::format("{} documents, {} of them kept", documents, documents - dropped));
  return {{"documents_sampled", documents},
          {"documents_dropped", dropped},
          {"tokens_sampled", tokens},
          {"shards", writer.num_shards()}};
}

}  // namespace halo
