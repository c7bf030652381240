#include "halo/formats/weight_names.h"

#include <algorithm>
#include <array>

#include "halo/base/dtype.h"

namespace halo {
namespace {

const TensorView* find(const std::vector<TensorView>& tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, name, &TensorView::name);
  return found == tensors.end() ? nullptr : &*found;
}

// [1, 1, n, n], or one number: what masked scores became.
bool is_mask(const TensorView& tensor) {
  const auto& shape = tensor.shape;
  return !is_floating(tensor.dtype) || shape.empty() || shape == std::vector<int64_t>{1} ||
         (shape.size() == 4 && shape[0] == 1 && shape[1] == 1 && shape[2] == shape[3]);
}

}  // namespace

std::string full_tensor_name(std::string_view stored) {
  constexpr std::array kParts = {"embed_tokens.", "layers.", "norm.", "rotary_emb."};
  const bool is_short =
      std::ranges::any_of(kParts, [&](const char* part) { return stored.starts_with(part); });
  return (is_short ? "model." : "") + std::string(stored);
}

bool is_constant_buffer(const TensorView& tensor) {
  const std::string_view name = tensor.name;
  constexpr std::array kRotary = {"inv_freq", "original_inv_freq", "cos_cached", "sin_cached"};
  const size_t rotary = name.rfind("rotary_emb.");
  if (rotary != name.npos)
    return std::ranges::find(kRotary, name.substr(name.find('.', rotary) + 1)) != kRotary.end();
  if (name == "position_ids" || name.ends_with(".position_ids")) return true;
  return (name.ends_with("attn.bias") || name.ends_with("attn.masked_bias")) && is_mask(tensor);
}

bool has_own_head(const std::vector<TensorView>& tensors) {
  const TensorView* head = find(tensors, kHeadName);
  const TensorView* embedding = find(tensors, kEmbeddingName);
  if (!head || !embedding) return false;
  return head->dtype != embedding->dtype || head->shape != embedding->shape ||
         !std::ranges::equal(head->bytes, embedding->bytes);
}

std::vector<TensorView> model_tensors(std::vector<TensorView> tensors, const ModelConfig& config) {
  std::erase_if(tensors, is_constant_buffer);
  if (!config.tie_word_embeddings) return tensors;
  const bool has_embedding = find(tensors, kEmbeddingName) != nullptr;
  if (has_embedding) {
    std::erase_if(tensors, [](const TensorView& t) { return t.name == kHeadName; });
  } else {
    const auto head = std::ranges::find(tensors, kHeadName, &TensorView::name);
    if (head != tensors.end()) head->name = kEmbeddingName;
  }
  return tensors;
}

}  // namespace halo
