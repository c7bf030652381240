// An answer's text taken apart while it grows: thoughts, text, and calls of tools in the forms that
// families of models were trained to write.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "halo/server/generation.h"

namespace halo {

enum class ToolFormat {
  kNone,     // text is text
  kTags,     // <tool_call>{"name", "arguments"}</tool_call>: Qwen2.5, Qwen3; a list: SmolLM2
  kMistral,  // [TOOL_CALLS][{"name", "arguments"}], [TOOL_CALLS]name[ARGS]{...}
  kLlama,    // {"name", "parameters"}, perhaps behind <|python_tag|>, with ';' between calls
};

// Which form a chat template makes a model write; kTags where it says nothing of it.
ToolFormat tool_format_of(std::string_view chat_template);
// Special tokens that must stay in a text for calls to be found in it.
std::vector<std::string_view> tool_markers(ToolFormat format);

struct AnswerForm {
  ToolFormat tools = ToolFormat::kNone;
  std::set<std::string, std::less<>> tool_names;  // of the request
  bool has_reasoning = false;                     // <think>...</think> before the answer
  bool begins_in_reasoning = false;               // the prompt ends with <think>
};

class AnswerParser {
 public:
  explicit AnswerParser(AnswerForm form);

  // Text of whole characters; what became certain. A call comes when it is complete; what turns out
  // to be none comes as text.
  std::vector<Piece> push(std::string_view text);
  std::vector<Piece> finish();
  bool has_calls() const { return num_calls_ > 0; }

 private:
  enum class State { kText, kReasoning, kCall };

  bool step(std::vector<Piece>& out);  // false: more text is needed
  bool step_text(std::vector<Piece>& out);
  bool step_reasoning(std::vector<Piece>& out);
  bool step_call(std::vector<Piece>& out);
  void emit(std::vector<Piece>& out, Piece::Kind kind, std::string_view text);
  bool emit_calls(std::vector<Piece>& out, std::string_view body);
  std::string_view opener() const;
  size_t find_tag_end();

  const AnswerForm form_;
  State state_;
  std::string held_;
  size_t searched_ = 0;                          // of held_, for the end of a call
  bool in_string_ = false, is_escaped_ = false;  // there, in the JSON of the call
  bool at_start_ = true;   // nothing but space came since the beginning, or the last part's end
  bool has_text_ = false;  // of the answer itself
  bool behind_opener_ = false;
  int num_calls_ = 0;
};

}  // namespace halo
