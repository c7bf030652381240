// The forms of golden folders that can be recomputed, a function each. Every one finds its cases by
// the names in the folder's own files.
#pragma once

#include <string>
#include <vector>

#include "halo/kernels/common/sequences.h"
#include "halo/model/decoder.h"
#include "halo/tokenizer/tokenizer.h"
#include "tests/golden/findings.h"

namespace halo::golden {

// A folder with config.json, model.safetensors and expected.safetensors.
void check_model(const std::filesystem::path& folder, Findings& findings);
// SmolLM2's folder, against the model in `directory`.
void check_smollm2(const std::filesystem::path& folder, const std::filesystem::path& directory,
                   Findings& findings);
// These two take the teacher from the folder qwen3-tiny beside `folder`.
void check_transfer(const std::filesystem::path& folder, Findings& findings);
void check_stage_losses(const std::filesystem::path& folder, Findings& findings);
void check_lightning(const std::filesystem::path& folder, Findings& findings);
void check_logit_scale(const std::filesystem::path& folder, Findings& findings);
void check_schedule(const std::filesystem::path& folder, Findings& findings);
void check_rope(const std::filesystem::path& folder, Findings& findings);
void check_selection(const std::filesystem::path& folder, Findings& findings);

// The tokenizers in a folder that have cases, and one of them.
std::vector<std::string> tokenizer_names(const std::filesystem::path& folder);
void check_tokenizer(const std::filesystem::path& folder, const std::string& name,
                     Findings& findings);
// A tokenizer against a file of cases.
void check_cases(const Tokenizer& tokenizer, const std::filesystem::path& file, Findings& findings);

// The chat templates in a folder (NAME.jinja) that have cases (NAME.json), and one of them.
std::vector<std::string> chat_template_names(const std::filesystem::path& folder);
void check_chat_template(const std::filesystem::path& folder, const std::string& name,
                         Findings& findings);

// Where models and stage losses run. Operations run in every form that is there; an error names the
// one it was found in.
struct Place {
  at::Device device = at::kCPU;
  std::vector<Kernels> forms = {Kernels::kFast, Kernels::kReference};
};
Place& place();
std::string in_form(const std::string& what, Kernels kernels);

// Where the rows of [B, T] tokens lie when they are laid end to end: 0, T, .., B T.
std::vector<int64_t> row_offsets(const at::Tensor& ids);
// Logits [B, T, V] of ids [B, T]; `positions` [B, T] may be undefined: 0 .. T-1.
at::Tensor model_logits(const DecoderWeights& weights, const at::Tensor& ids,
                        const at::Tensor& positions, Kernels kernels);
Model load_teacher(const std::filesystem::path& folder);

}  // namespace halo::golden
