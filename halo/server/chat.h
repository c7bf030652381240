// POST /v1/chat/completions: an answer to a conversation.
#pragma once

#include <memory>

#include "halo/server/answer_format.h"
#include "halo/server/conversation.h"
#include "halo/server/generation.h"

namespace halo {

struct ChatRequest {
  Generation generation;
  Conversation conversation;
  bool add_generation_prompt = true;
  bool continue_final_message = false;  // the answer goes on with the last message
};

ChatRequest read_chat(const json::value& body);

// `model` is the name that is answered.
std::unique_ptr<AnswerFormat> chat_format(const ChatRequest& request, const std::string& model);

}  // namespace halo
