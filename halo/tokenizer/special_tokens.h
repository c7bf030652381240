// The special tokens of a model directory, as transformers gives them to a chat template.
#pragma once

#include <boost/json.hpp>
#include <filesystem>

namespace halo {

// Name -> text ("bos_token" -> "<s>"), and the list `additional_special_tokens`. From
// tokenizer_config.json; over it special_tokens_map.json, unless the former has
// `added_tokens_decoder`; below both the defaults of the tokenizer's class. A token is a text or an
// object with `content`; null takes it away. Besides the seven usual names every key that ends in
// "_token" counts, and the named tokens in `extra_special_tokens` and
// `model_specific_special_tokens`.
boost::json::object special_tokens(const std::filesystem::path& model);

}  // namespace halo
