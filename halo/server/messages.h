// POST /v1/messages: Anthropic's form of a conversation and its answer.
#pragma once

#include <memory>

#include "halo/server/chat.h"

namespace halo {

// `needs_limit`: max_tokens must be there, as that API wants for all but counting.
ChatRequest read_anthropic(const json::value& body, bool needs_limit);

std::unique_ptr<AnswerFormat> anthropic_format(const std::string& model);

// {"type": "error", "error": {"type", "message", ...}}
json::object anthropic_error(const ApiError& error);

}  // namespace halo
