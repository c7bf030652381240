#include "halo/cli/generation.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/progress.h"
#include "halo/chat/chat_template.h"
#include "halo/data/pack.h"
#include "halo/pipeline/run_folder.h"

namespace halo {
namespace {

void check_ids(const std::vector<int64_t>& prompt, const Tokenizer& tokenizer, int64_t vocabulary) {
  if (prompt.empty()) throw_error("the prompt is empty");
  // Tokenizers may have tokens that were added without the model's knowing.
  for (const int64_t id : prompt) {
    if (id >= vocabulary)
      throw_error("the prompt holds '{}', token {}, for which the model has no row: its are {}",
                  tokenizer.token_bytes(id), id, vocabulary);
  }
}

}  // namespace

std::vector<int64_t> GenerationModel::encode(const std::string& text) const {
  std::vector<int64_t> prompt = tokenizer->encode(text);
  if (begin && (prompt.empty() || prompt.front() != *begin)) prompt.insert(prompt.begin(), *begin);
  check_ids(prompt, *tokenizer, vocabulary);
  return prompt;
}

std::vector<int64_t> GenerationModel::encode_chat(const std::string& rendered) const {
  std::vector<int64_t> prompt = tokenizer->encode(rendered);
  check_ids(prompt, *tokenizer, vocabulary);
  return prompt;
}

GenerationModel load_generation_model(const std::filesystem::path& directory,
                                      const MachineRecipe& recipe) {
  if (const std::string why = why_stale(directory); !why.empty()) warn(why);
  GenerationModel out;
  out.directory = directory;
  out.machine = open_machine(recipe);
  const Model model =
      load_model(directory, ParameterStore::Use::kFrozen, out.machine.compute, out.machine.device);
  out.vocabulary = model.config.vocab_size;
  out.weights = std::make_shared<const DecoderWeights>(model.weights);
  out.end_tokens = read_end_tokens(directory, model.config);
  const std::filesystem::path tokenizer_path = directory / "tokenizer.json";
  if (std::filesystem::exists(tokenizer_path)) {
    out.tokenizer.emplace(tokenizer_path);
    out.begin = document_begin(*out.tokenizer, tokenizer_path);
  }
  return out;
}

std::string render_message(const std::filesystem::path& directory, const std::string& text) {
  json::array messages;
  messages.push_back(json::object{{"role", "user"}, {"content", text}});
  ChatOptions options;
  options.add_generation_prompt = true;
  return ModelChat(directory).render(messages, std::move(options));
}

std::string finish_word(Finish::Reason reason) {
  switch (reason) {
    case Finish::Reason::kStop:
      return "stop";
    case Finish::Reason::kLength:
      return "length";
    case Finish::Reason::kCancelled:
      return "cancelled";
    case Finish::Reason::kError:
      return "error";
  }
  return "?";
}

}  // namespace halo
