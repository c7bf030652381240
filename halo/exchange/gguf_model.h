// A GGUF file as a Hugging Face model: configuration, tensors under their names there, tokenizer
// files. Architectures: llama (Mistral's files too), qwen2, qwen3.
#pragma once

#include <string>
#include <vector>

#include "halo/formats/gguf.h"
#include "halo/formats/model_config.h"

namespace halo {

struct GgufWeight {
  std::string name;            // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // row-major
  const GgufTensor* tensor = nullptr;
  // llama's q and k are stored with each head's rotary pairs side by side, [d/2, 2] instead of
  // [2, d/2]: so many heads to undo this for, 0 for none.
  int64_t paired_heads = 0;
};

// Views into the contents, which must outlive this. An Error names `file` and what of it has no
// counterpart.
class GgufModel {
 public:
  GgufModel(const Gguf& contents, const std::string& file);

  const ModelConfig& config() const { return config_; }
  const std::vector<GgufWeight>& weights() const { return weights_; }

 private:
  ModelConfig config_;
  std::vector<GgufWeight> weights_;
};

// Rows first .. first + out.size() / row length - 1 of a weight (all of a 1-D one) as fp32.
void read_rows(const GgufWeight& weight, int64_t first, std::span<float> out);

// tokenizer.json, tokenizer_config.json and generation_config.json of the file's tokenizer.
struct GgufTokenizer {
  json::object tokenizer, tokenizer_config, generation_config;
};
GgufTokenizer gguf_tokenizer(const Gguf& contents, const std::string& file);

// Readers of metadata; each kind is checked.
class GgufMetadata {
 public:
  GgufMetadata(const Gguf& contents, std::string file)
      : contents_(contents), file_(std::move(file)) {}

  const auto& entries() const { return contents_.metadata; }
  bool has(const std::string& key) const { return find(key) != nullptr; }
  const GgufValue* find(const std::string& key) const;  // nullptr: not there
  [[noreturn]] void refuse(const std::string& key, const std::string& what) const;

  template <class T>
  const T& get(const std::string& key) const {
    const GgufValue* value = find(key);
    if (!value) refuse(key, "is missing");
    const T* typed = std::get_if<T>(value);
    if (!typed) refuse(key, "has another type than expected");
    return *typed;
  }
  template <class T>
  T get_or(const std::string& key, T fallback) const {
    return has(key) ? get<T>(key) : fallback;
  }
  // Of either kind of number, as the shortest decimal that rounds to the fp32 value in the file.
  double number_or(const std::string& key, double fallback) const;
  // The tokens that end a text: eos, and eot and eom of chat models, each once.
  std::vector<int64_t> end_tokens() const;

 private:
  const Gguf& contents_;
  std::string file_;
};

}  // namespace halo
