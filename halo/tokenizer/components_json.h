// The components of a tokenizer.json around its model. One that we do not know is refused by name.
#pragma once

#include <string>

#include "halo/base/json.h"
#include "halo/tokenizer/tokenizer_json.h"

namespace halo::tokenizer_json {

Normalizer read_normalizer(const json::object& root, const std::string& file);
// Also sets file.model.byte_level, which the pre-tokenizer decides.
void read_pre_tokenizer(const json::object& root, const std::string& file, TokenizerFile& out);
// `out` must have its vocabulary and added tokens.
void read_post_processor(const json::object& root, const std::string& file, TokenizerFile& out);
DecoderSteps read_decoder(const json::object& root, const std::string& file);

}  // namespace halo::tokenizer_json
