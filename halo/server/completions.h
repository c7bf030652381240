// POST /v1/completions: texts or tokens to go on with.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "halo/server/answer_format.h"
#include "halo/server/generation.h"

namespace halo {

struct CompletionRequest {
  Generation generation;
  std::vector<std::variant<std::string, std::vector<int64_t>>> prompts;
  bool echo = false;
  bool add_special_tokens = true;  // to texts: the one that begins documents
};

// `prompt` is a text, a list of texts, a list of tokens or a list of such lists.
CompletionRequest read_completion(const json::value& body);

// Choice i is of prompt i / n. `model` is the name that is answered.
std::unique_ptr<AnswerFormat> completion_format(const CompletionRequest& request,
                                                const std::string& model);

// A token's text, or "bytes:\xe2\x82" where its bytes are no text.
std::string token_name(const std::string& bytes);

}  // namespace halo
