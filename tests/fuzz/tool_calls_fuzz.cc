// Any text as a model's answer, in every form of calls and cut into pieces of any size: what comes
// out is the same, and it is text.
#include <cstdlib>

#include "halo/base/utf8.h"
#include "halo/server/tool_calls.h"

namespace {

using namespace halo;

std::vector<Piece> parse(const AnswerForm& form, std::string_view text, size_t size) {
  AnswerParser parser(form);
  std::vector<Piece> out;
  const auto add = [&](const std::vector<Piece>& pieces) {
    for (const Piece& piece : pieces) {
      const bool joins = !out.empty() && piece.kind != Piece::Kind::kToolCall &&
                         out.back().kind == piece.kind;
      if (joins) {
        out.back().text += piece.text;
      } else {
        out.push_back(piece);
      }
    }
  };
  for (size_t i = 0; i < text.size(); i += size) add(parser.push(text.substr(i, size)));
  add(parser.finish());
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 2000) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  if (!is_utf8(text)) return 0;
  AnswerForm form;
  form.tools = static_cast<ToolFormat>(data[0] % 4);
  form.has_reasoning = (data[0] & 4) != 0;
  form.begins_in_reasoning = form.has_reasoning && (data[0] & 8) != 0;
  form.tool_names = {"f"};
  if (parse(form, text, 1 + data[1]) != parse(form, text, size)) std::abort();
  return 0;
}
