// Any bytes as a chat template, rendered for a conversation with tools: text, or one Error, within
// small budgets.
#include <cstdlib>
#include <string_view>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/chat/chat_template.h"

namespace {

// The variables that the kept templates ask for.
constexpr std::string_view kVariables = R"({
  "s": "Hello World", "t": "  one two\tthree \n", "u": "ähnlich Straße ΟΔΟΣ 中文 👍",
  "m": "<think>\nwhy\n</think>\n\nSo.", "e": "", "n": 7, "z": 0, "f": 2.5, "yes": true, "no": false,
  "nil": null, "xs": [3, 1, 2], "ys": ["b", "A", "c", "a", "B"],
  "d": {"role": "user", "content": "Hi", "b": 1, "A": 2},
  "ms": [{"role": "system", "n": 3}, {"role": "user", "content": ["a", {"type": "text"}]}],
  "nested": {"a": {"b": [{"c": "deep"}]}, "0": "zero"}, "bos_token": "<s>", "eos_token": "</s>",
  "mixed": [1, 2.0, true, null, "x", [1], {"k": "v"}, "it's"], "numbers": [0, -1, 1.5, 1e16]})";
constexpr std::string_view kMessages = R"([
  {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"},
  {"role": "assistant", "content": "<think>\nhm\n</think>\n\nOk", "tool_calls": [
    {"id": "abcdef123", "function": {"name": "get", "arguments": {"city": "Köln"}}}]},
  {"role": "tool", "tool_call_id": "abcdef123", "content": "12 C"},
  {"role": "user", "content": [{"type": "text", "text": "Thanks"}]}])";
constexpr std::string_view kTools = R"([{"type": "function", "function": {"name": "get",
  "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["a"]}},
  "required": ["city"]}}}])";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace halo;
  static const json::array messages = parse_json(kMessages, "fuzz").as_array();
  static const ChatOptions options = [] {
    ChatOptions out;
    out.variables = parse_json(kVariables, "fuzz").as_object();
    out.tools = parse_json(kTools, "fuzz");
    out.add_generation_prompt = true;
    out.limits = {.steps = 20'000, .bytes = 4 << 20, .output = 1 << 20};
    return out;
  }();
  try {
    const ChatTemplate chat({reinterpret_cast<const char*>(data), size}, "fuzz");
    const std::string text = chat.render(messages, options);
    if (text.size() > (1 << 20)) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
