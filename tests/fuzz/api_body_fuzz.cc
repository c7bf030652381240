// Any text as a request's body: what each API reads of it, or one ApiError that is a 4xx.
#include "halo/base/check.h"
#include "halo/server/completions.h"
#include "halo/server/messages.h"
#include "halo/server/responses.h"

namespace {

template <class Read>
void read(Read read_body, const halo::json::value& body) {
  try {
    read_body(body);
  } catch (const halo::ApiError& error) {
    const halo::HttpAnswer answer = error.answer();
    if (answer.status < 400 || answer.status >= 500) __builtin_trap();
    halo::parse_json(answer.body, "answer");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  halo::json::value body;
  try {
    body = halo::parse_json({reinterpret_cast<const char*>(data), size}, "body");
  } catch (const halo::Error&) {
    return 0;
  }
  const auto rules_of = [](const halo::ChatRequest& chat) {
    for (const auto format :
         {halo::ToolFormat::kTags, halo::ToolFormat::kMistral, halo::ToolFormat::kLlama}) {
      halo::answer_rules({.tools = format, .has_reasoning = true}, chat.conversation.rules,
                         chat.generation.schema);
    }
  };
  read([](const auto& value) { halo::read_completion(value); }, body);
  read([&](const auto& value) { rules_of(halo::read_chat(value)); }, body);
  read([&](const auto& value) { rules_of(halo::read_responses(value).chat); }, body);
  read([&](const auto& value) { rules_of(halo::read_anthropic(value, true)); }, body);
  return 0;
}
