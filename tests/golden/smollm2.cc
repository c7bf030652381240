// The real SmolLM2-135M-Instruct, from the directory that `halo import` made of its GGUF file:
// logits, greedy text, tokenizer. A tree may also have its tokenizer.json, or the loss on a corpus.
#include <cmath>
#include <memory>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/data/readers.h"
#include "halo/engine/generate.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "halo/tokenizer/tokenizer.h"
#include "tests/golden/forms.h"

namespace halo::golden {
namespace {

namespace fs = std::filesystem;

constexpr double kLossBound = 1e-5;  // relative
constexpr int64_t kDocumentTokens = 1024;

std::vector<int64_t> to_list(const at::Tensor& ids) {
  const int64_t* data = ids.const_data_ptr<int64_t>();
  return {data, data + ids.numel()};
}

// Whole rows were not kept: of the last 4 positions the largest 128 logits and three moments.
void check_prompt(const Model& model, const Expected& expected, const std::string& prompt,
                  Findings& findings) {
  const at::Tensor ids = expected.get(prompt + ".ids");
  const at::Tensor last =
      model_logits(model.weights, ids.unsqueeze(0), {}, Kernels::kFast)[0].slice(0, -4);
  const at::Tensor top_ids = expected.get(prompt + ".last4_top_ids");
  findings.tensor(prompt + ", largest logits", last.gather(1, top_ids),
                  expected.get(prompt + ".last4_top_logits"));
  const std::pair<const char*, at::Tensor> moments[] = {
      {"logsumexp", last.logsumexp(1)}, {"mean", last.mean(1)}, {"std", last.std(1)}};
  const double rms = last.square().mean().sqrt().item<double>();
  for (const auto& [name, value] : moments) {
    findings.absolute(fmt::format("{}, {} of logits", prompt, name), value,
                      expected.get(fmt::format("{}.last4_{}", prompt, name)), kTensorBound * rms);
  }
  const std::string all = prompt + ".last_logits";
  if (expected.contains(all)) findings.tensor(all, last[-1], expected.get(all));

  Scheduler scheduler(std::make_shared<const DecoderWeights>(model.weights), {});
  const std::vector<int64_t> want = to_list(expected.get(prompt + ".greedy_ids"));
  const auto got = answer(scheduler, {{.prompt = to_list(ids), .max_tokens = std::ssize(want)}});
  findings.equal(prompt + ", greedy ids", got[0].tokens == want);
  expected.get(prompt + ".greedy_margin");
}

// Sum over a document's predictions, nats.
double document_loss(const Model& model, std::vector<int64_t> ids) {
  const at::Tensor tokens = at::tensor(ids, at::kLong);
  Batch batch = make_batch(tokens, {0, tokens.numel()}, at::kCPU);
  const at::Tensor hidden = decode(model.weights, batch);
  const at::Tensor targets = at::cat({tokens.slice(0, 1), at::full({1}, kIgnoreTarget, at::kLong)});
  return linear_cross_entropy(hidden, model.weights.head, targets, {}).item<double>();
}

void check_corpus(const Model& model, const Tokenizer& tokenizer, const fs::path& folder,
                  Findings& findings) {
  const std::string file = (folder / "expected.json").string();
  const json::value expected = read_json(file);
  const json::array& documents =
      expected.at("corpus").at("bf16_weights").at("documents").as_array();
  const fs::path corpus = folder / "../../data/corpus/validation.jsonl.zst";
  double got = 0, want = 0;
  size_t number = 0;
  read_documents({corpus}, [&](const Document& document) {
    if (number >= documents.size()) return;
    const json::object& entry = documents[number].as_object();
    std::vector<int64_t> ids = tokenizer.encode(document.text);
    ids.resize(std::min<size_t>(ids.size(), kDocumentTokens));
    findings.equal(fmt::format("document {}, tokens", number),
                   int64_t(ids.size()) == json_get<int64_t>(entry, "tokens", file));
    const double loss = document_loss(model, ids);
    const double wanted = json_get<double>(entry, "nll_nats", file);
    findings.relative(fmt::format("document {}, loss", number), loss, wanted, 10 * kLossBound);
    got += loss;
    want += wanted;
    ++number;
  });
  findings.equal("documents of the corpus", number == documents.size());
  findings.relative("loss of the corpus", got, want, kLossBound);
}

}  // namespace

void check_smollm2(const fs::path& folder, const fs::path& directory, Findings& findings) {
  at::NoGradGuard no_grad;
  const Model model = load_model(directory, ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
  const Tokenizer tokenizer(directory / "tokenizer.json");
  if (const fs::path cases = folder / "cases.jsonl"; fs::exists(cases)) {
    check_cases(tokenizer, cases, findings);
  }
  if (const fs::path stored = folder / "../tokenizer/smollm2.tokenizer.json.zst";
      fs::exists(stored)) {
    std::string fixture;
    stream_file(stored, [&](std::string_view piece) { fixture += piece; });
    findings.equal("tokenizer.json",
                   read_json(directory / "tokenizer.json") == parse_json(fixture, "fixture"));
  }

  const Expected expected(folder / "expected.safetensors");
  const json::value file = read_json(folder / "expected.json");
  const json::array& prompts = file.at("prompts").as_array();
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::string name = fmt::format("prompt{}", i);
    const json::object& prompt = prompts[i].as_object();
    check_prompt(model, expected, name, findings);
    const std::vector<int64_t> ids = to_list(expected.get(name + ".ids"));
    findings.equal(name + ", ids of its text",
                   tokenizer.encode(json_get<std::string>(prompt, "text", name)) == ids);
    findings.equal(name + ", greedy text",
                   tokenizer.decode(to_list(expected.get(name + ".greedy_ids"))) ==
                       json_get<std::string>(prompt, "greedy_text", name));
    findings.relative(name + ", loss", document_loss(model, ids) / double(ids.size() - 1),
                      json_get<double>(prompt, "mean_nll_bf16_weights", name), kLossBound);
  }
  if (file.as_object().contains("corpus")) check_corpus(model, tokenizer, folder, findings);
  expected.note_rest(findings);
}

}  // namespace halo::golden
