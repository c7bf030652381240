// A model directory that is served: its texts and names, without weights.
#pragma once

#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "halo/chat/chat_template.h"
#include "halo/formats/model_config.h"
#include "halo/grammar/grammar.h"
#include "halo/server/chat.h"
#include "halo/server/completions.h"
#include "halo/server/tool_calls.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

class ServedModel {
 public:
  // `name` is what clients call it; empty: the directory's.
  ServedModel(const std::filesystem::path& directory, const ModelConfig& config, std::string name);

  const std::string& name() const { return name_; }
  // Of configuration and weights, which the first call reads; from any thread.
  const std::string& hash() const;
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const ModelConfig& config() const { return config_; }
  const std::vector<int64_t>& end_tokens() const { return end_tokens_; }
  bool has_chat() const { return chat_.has_value(); }
  const std::string& chat_template() const;  // Jinja; empty where there is none
  // "bos_token" and the like, as transformers names them.
  const json::object& special_tokens() const { return special_tokens_; }
  int64_t created() const { return created_; }  // of the weights, seconds since 1970

  // A text's tokens. `add_special`: the one that begins documents is put first, once. An ApiError
  // of `param` where one is none of the model's.
  std::vector<int64_t> encode(const std::string& text, bool add_special,
                              const std::string& param) const;
  void check_tokens(std::span<const int64_t> tokens, const std::string& param) const;

  // The conversation as the model reads it. An ApiError where the model has no template, or the
  // template refuses.
  std::string render(const ChatRequest& request) const;
  // How answers to it are to be read; `prompt` is the rendered one.
  AnswerForm answer_form(const ChatRequest& request, const std::string& prompt) const;
  // The grammar of answers that must be so. An ApiError of `param` where there is none.
  Grammar grammar(const TextFormat& rules, const std::string& param) const;

 private:
  const std::filesystem::path directory_;
  std::string name_;
  mutable std::once_flag hashed_;
  mutable std::string hash_;
  ModelConfig config_;
  Tokenizer tokenizer_;
  std::optional<ModelChat> chat_;
  std::unique_ptr<const GrammarCompiler> grammars_;
  std::vector<int64_t> end_tokens_;
  std::optional<int64_t> document_begin_;
  json::object special_tokens_;
  int64_t created_ = 0;
};

}  // namespace halo
