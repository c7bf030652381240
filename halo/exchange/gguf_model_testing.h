// A small model as a GGUF file, for the tests of what becomes of it.
#pragma once

#include <string>
#include <vector>

#include "halo/base/check.h"
#include "halo/exchange/gguf_model.h"
#include "halo/formats/gguf_testing.h"
#include "tests/testing.h"

namespace halo::test {

// A file's bytes and what they hold.
class InMemory {
 public:
  explicit InMemory(const GgufWriter& writer)
      : bytes_(writer.file()), contents_(parse_gguf(std::as_bytes(std::span(bytes_)), "m.gguf")) {}
  const Gguf& contents() const { return contents_; }
  GgufModel model() const { return {contents_, "m.gguf"}; }
  GgufTokenizer tokenizer() const { return gguf_tokenizer(contents_, "m.gguf"); }

 private:
  std::string bytes_;
  Gguf contents_;
};

inline std::vector<float> counting(int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return values;
}

// One layer: 4 heads and 2 key/value heads of 4, hidden size 16, MLP 24, 6 tokens.
struct GgufModelOptions {
  std::string architecture = "llama";
  bool head = false, norms = false, biases = false;
  uint64_t rows = 6;  // of the embedding
  float theta = 500000;
  std::string replaced = {};  // a number that gets `value` instead
  int64_t value = 0;
};

inline GgufWriter small_model(const GgufModelOptions& options = {}) {
  GgufWriter w;
  const std::string& a = options.architecture;
  w.add("general.architecture", a.c_str());
  for (const auto& [key, usual] : {std::pair("block_count", 1),
                                   {"context_length", 512},
                                   {"embedding_length", 16},
                                   {"feed_forward_length", 24},
                                   {"attention.head_count", 4},
                                   {"attention.head_count_kv", 2}}) {
    const int64_t value = key == options.replaced ? options.value : usual;
    w.entry(a + "." + key, GgufWriter::kI64, GgufWriter::raw(value));
  }
  w.add(a + ".rope.freq_base", options.theta);
  w.add(a + ".attention.layer_norm_rms_epsilon", 1e-5f);
  w.tensor("token_embd.weight", {16, options.rows}, counting(16 * options.rows));
  w.tensor("output_norm.weight", {16}, counting(16));
  if (options.head) w.tensor("output.weight", {16, options.rows}, counting(16 * options.rows));
  const std::string p = "blk.0.";
  w.tensor(p + "attn_norm.weight", {16}, counting(16));
  w.tensor(p + "ffn_norm.weight", {16}, counting(16));
  w.tensor(p + "attn_q.weight", {16, 16}, counting(256));
  w.tensor(p + "attn_k.weight", {16, 8}, counting(128));
  w.tensor(p + "attn_v.weight", {16, 8}, counting(128));
  w.tensor(p + "attn_output.weight", {16, 16}, counting(256));
  w.tensor(p + "ffn_gate.weight", {16, 24}, counting(384));
  w.tensor(p + "ffn_up.weight", {16, 24}, counting(384));
  w.tensor(p + "ffn_down.weight", {24, 16}, counting(384));
  if (options.norms) {
    w.tensor(p + "attn_q_norm.weight", {4}, counting(4));
    w.tensor(p + "attn_k_norm.weight", {4}, counting(4));
  }
  if (options.biases) {
    w.tensor(p + "attn_q.bias", {16}, counting(16));
    w.tensor(p + "attn_k.bias", {8}, counting(8));
    w.tensor(p + "attn_v.bias", {8}, counting(8));
  }
  return w;
}

inline const GgufWeight& find(const GgufModel& model, const std::string& name) {
  for (const GgufWeight& weight : model.weights())
    if (weight.name == name) return weight;
  throw_error("no {}", name);
}

inline std::vector<float> read_all(const GgufModel& model, const std::string& name) {
  const GgufWeight& weight = find(model, name);
  std::vector<float> values(
      static_cast<size_t>(weight.tensor->num_rows() * weight.tensor->row_length()));
  read_rows(weight, 0, values);
  return values;
}

inline std::string error_of(const GgufWriter& writer) {
  return error_of([&] {
    const InMemory t(writer);
    const GgufModel model = t.model();
    t.tokenizer();
  });
}

inline GgufTokenizer tokenizer_of(const GgufWriter& writer) {
  const InMemory t(writer);
  return t.tokenizer();
}

// `pre` null: without it.
inline GgufWriter byte_level(const char* pre, const GgufModelOptions& options = {}) {
  GgufWriter w = small_model(options);
  w.add("tokenizer.ggml.model", "gpt2");
  if (pre) w.add("tokenizer.ggml.pre", pre);
  w.add("tokenizer.ggml.tokens", std::vector<std::string>{"<s>", "a", "b", "\u0120", "ab", "<t>"});
  w.add("tokenizer.ggml.token_type", std::vector<int32_t>{3, 1, 1, 1, 1, 4});
  w.add("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  w.add("tokenizer.ggml.bos_token_id", 0u);
  w.add("tokenizer.ggml.eos_token_id", 5u);
  w.add("tokenizer.chat_template", "{{ x }}");
  return w;
}

}  // namespace halo::test
