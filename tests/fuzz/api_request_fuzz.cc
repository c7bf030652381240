// Any text as the body of a request, for every route that reads one: a request, or one Error.
#include "halo/server/completions.h"
#include "halo/server/messages.h"
#include "halo/server/responses.h"

namespace {

template <class Read>
void use(Read read, const halo::json::value& body) {
  try {
    read(body);
  } catch (const halo::ApiError& error) {
    halo::to_line(error.to_json());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace halo;
  json::value body;
  try {
    body = parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const Error&) {
    return 0;
  }
  use([](const json::value& value) { read_completion(value); }, body);
  use([](const json::value& value) { read_responses(value); }, body);
  use([](const json::value& value) { read_anthropic(value, true); }, body);
  use(
      [](const json::value& value) {
        ChatRequest request = read_chat(value);
        if (!request.conversation.tools.is_null()) describe_tools(request.conversation);
      },
      body);
  return 0;
}
