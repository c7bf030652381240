// Models: logits and hidden states of one pass, greedy decoding through the engine.
#include <memory>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/engine/generate.h"
#include "tests/golden/forms.h"

namespace halo::golden {
namespace {

Batch batch_of(const at::Tensor& ids, const at::Tensor& positions, Kernels kernels) {
  Batch batch = positions.defined() ? make_batch(ids.flatten(), row_offsets(ids),
                                                 positions.flatten(), place().device)
                                    : make_batch(ids.flatten(), row_offsets(ids), place().device);
  batch.kernels = kernels;
  return batch;
}

void check_hidden(const Model& model, const Expected& expected, Kernels kernels,
                  Findings& findings) {
  const at::Tensor ids = expected.get("input_ids"), want = expected.get("hidden");
  const Batch batch = batch_of(ids, {}, kernels);
  at::Tensor hidden = embed(model.weights, batch);
  std::vector<at::Tensor> after;
  for (int64_t layer = 0; layer < model.config.num_layers; ++layer) {
    hidden = decode_layers(model.weights, layer, layer + 1, hidden, batch);
    after.push_back(hidden.view({ids.size(0), ids.size(1), -1}));
  }
  findings.tensor(in_form("hidden", kernels), at::stack(after), want);
}

void check_greedy(const Model& model, const Expected& expected, Kernels kernels,
                  Findings& findings) {
  const at::Tensor prompt_ids = expected.get("prompt_ids"), want = expected.get("greedy_ids");
  std::vector<Request> requests;
  std::vector<std::vector<at::Tensor>> rows(static_cast<size_t>(prompt_ids.size(0)));
  for (size_t p = 0; p < rows.size(); ++p) {
    const at::Tensor row = prompt_ids[static_cast<int64_t>(p)].contiguous();
    const int64_t* ids = row.const_data_ptr<int64_t>();
    requests.push_back({.prompt = {ids, ids + row.numel()}, .max_tokens = want.size(1)});
    requests.back().on_logits = [&rows, p](std::span<const float> values) {
      rows[p].push_back(at::tensor(values, at::kFloat));
    };
  }
  Scheduler scheduler(std::make_shared<const DecoderWeights>(model.weights), {.kernels = kernels});
  std::vector<at::Tensor> tokens, logits;
  for (const Answer& said : answer(scheduler, std::move(requests))) {
    tokens.push_back(at::tensor(said.tokens, at::kLong));
    logits.push_back(at::stack(rows[tokens.size() - 1]));
  }
  findings.equal(in_form("greedy_ids", kernels), at::stack(tokens).equal(want));
  if (expected.contains("greedy_logits")) {
    findings.tensor(in_form("greedy_logits", kernels), at::stack(logits),
                    expected.get("greedy_logits"));
  }
}

}  // namespace

Place& place() {
  static Place here;
  return here;
}

std::string in_form(const std::string& what, Kernels kernels) {
  return fmt::format("{}, {}", what, kernels == Kernels::kFast ? "fast" : "reference");
}

std::vector<int64_t> row_offsets(const at::Tensor& ids) {
  HALO_CHECK(ids.dim() == 2, "golden: token ids must be [rows, tokens], got {} dimensions",
             ids.dim());
  std::vector<int64_t> offsets{0};
  for (int64_t row = 0; row < ids.size(0); ++row) offsets.push_back(offsets.back() + ids.size(1));
  return offsets;
}

at::Tensor model_logits(const DecoderWeights& weights, const at::Tensor& ids,
                        const at::Tensor& positions, Kernels kernels) {
  const at::Tensor hidden = decode(weights, batch_of(ids, positions, kernels));
  return logits(weights, hidden, kernels).view({ids.size(0), ids.size(1), -1});
}

Model load_teacher(const std::filesystem::path& folder) {
  return load_model(folder.parent_path() / "qwen3-tiny", ParameterStore::Use::kFrozen, at::kFloat,
                    place().device);
}

void check_model(const std::filesystem::path& folder, Findings& findings) {
  at::NoGradGuard no_grad;
  const Model model = load_model(folder, ParameterStore::Use::kFrozen, at::kFloat, place().device);
  const Expected expected(folder / "expected.safetensors");
  const at::Tensor ids = expected.get("input_ids");
  for (const Kernels kernels : place().forms) {
    findings.tensor(in_form("logits", kernels), model_logits(model.weights, ids, {}, kernels),
                    expected.get("logits"));
    // Angles are exact here, so those of fp32 products (`logits_offset`) are not the ones to meet.
    if (expected.contains("position_ids_offset")) {
      findings.tensor(
          in_form("logits_offset_exact_angles", kernels),
          model_logits(model.weights, ids, expected.get("position_ids_offset"), kernels),
          expected.get("logits_offset_exact_angles"));
    }
    if (expected.contains("hidden")) check_hidden(model, expected, kernels, findings);
    if (expected.contains("greedy_ids")) check_greedy(model, expected, kernels, findings);
  }
  expected.note_rest(findings);
}

}  // namespace halo::golden
