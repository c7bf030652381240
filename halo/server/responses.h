// POST /v1/responses, without memory between requests: every request brings its whole conversation.
#pragma once

#include <memory>

#include "halo/server/chat.h"

namespace halo {

struct ResponsesRequest {
  ChatRequest chat;
  json::object said;  // fields of the request that the response repeats
};

// Items of unknown types, previous_response_id and the like are refused; tools that are no
// functions are left out, since nobody here runs them.
ResponsesRequest read_responses(const json::value& body);

std::unique_ptr<AnswerFormat> responses_format(const ResponsesRequest& request,
                                               const std::string& model);

}  // namespace halo
