// halo generate --jsonl: prompts and options a line, answers a line (docs/formats/generate.md).
#pragma once

#include "halo/cli/generation.h"
#include "halo/engine/generate.h"

namespace halo {

struct GenerateLinesArgs {
  std::filesystem::path file;
  bool chat = false;              // prompts are users' messages
  std::vector<std::string> stop;  // what lines do not say otherwise
  GenerateArgs generate;
  EngineRecipe engine;
  int64_t n = 1, logprobs = -1;
};

// Every line is read and checked before the first answer; answers go to standard output as soon as
// those before them have. An Error at the end where some could not be given.
void generate_lines(const GenerationModel& model, const GenerateLinesArgs& args);

// [{"id", "logprob", "top": [{"id", "logprob"}]}], `top` where more than the tokens' own are asked.
json::array logprobs_to_json(const std::vector<TokenEvent>& events);

}  // namespace halo
