// One loop: each turn feeds every running sequence its last token, and sequences that just started
// their prompt, in one decoder call.
#include "halo/engine/generate.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/random.h"

namespace halo {
namespace {

struct Running {
  size_t prompt;  // index
  OwnedSequence sequence;
  Random random;
};

// One draw in [0, 1) for the next token of every sequence; 24 bits, so that fp32 holds it exactly.
at::Tensor draw_uniforms(const Engine& engine, const std::vector<Running>& running) {
  at::Tensor uniforms = at::empty({static_cast<int64_t>(running.size())}, at::kFloat);
  float* data = uniforms.data_ptr<float>();
  for (const Running& r : running) {
    const uint64_t bits = r.random.bits(engine.length(r.sequence.id()));
    *data++ = static_cast<float>(bits >> 40) * 0x1p-24f;
  }
  return uniforms;
}

}  // namespace

std::vector<std::vector<int64_t>> generate(
    Engine& engine, const std::vector<std::vector<int64_t>>& prompts, const GenerateArgs& args,
    const std::function<void(const GenerateStep&)>& on_step) {
  at::NoGradGuard no_grad;
  HALO_CHECK(args.max_running > 0, "generate: max_running is {}", args.max_running);
  std::vector<std::vector<int64_t>> results(prompts.size());
  if (args.max_tokens <= 0) return results;
  std::vector<Running> running;
  size_t next_prompt = 0;
  while (true) {
    while (next_prompt < prompts.size() &&
           static_cast<int64_t>(running.size()) < args.max_running) {
      running.push_back(
          {next_prompt, OwnedSequence(engine),
           Random(static_cast<uint64_t>(args.seed), "sample", args.first_stream + next_prompt)});
      ++next_prompt;
    }
    if (running.empty()) return results;

    GenerateStep step;
    std::vector<int64_t> sequences;
    std::vector<std::vector<int64_t>> inputs;
    for (const Running& r : running) {
      step.prompts.push_back(r.prompt);
      sequences.push_back(r.sequence.id());
      const std::vector<int64_t>& made = results[r.prompt];
      inputs.push_back(made.empty() ? prompts[r.prompt] : std::vector<int64_t>{made.back()});
    }
    step.logits = engine.advance(sequences, inputs);
    at::Tensor uniforms;
    if (args.sample.temperature > 0) {
      uniforms = draw_uniforms(engine, running).to(step.logits.device());
    }
    const at::Tensor tokens = sample_tokens(step.logits, args.sample, uniforms).cpu();
    step.tokens.assign(tokens.data_ptr<int64_t>(), tokens.data_ptr<int64_t>() + tokens.numel());
    for (size_t i = 0; i < running.size(); ++i) {
      results[running[i].prompt].push_back(step.tokens[i]);
    }
    if (on_step) on_step(step);
    std::erase_if(running, [&](const Running& r) {
      const std::vector<int64_t>& made = results[r.prompt];
      return static_cast<int64_t>(made.size()) >= args.max_tokens ||
             std::ranges::find(args.stop_ids, made.back()) != args.stop_ids.end() ||
             (args.ended && args.ended(r.prompt));
    });
  }
}

}  // namespace halo
