// The lightning operator alone: outputs, states, all gradients, packed sequences, and the slopes.
#include "halo/kernels/lightning/lightning.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/json.h"
#include "tests/golden/forms.h"

namespace halo::golden {
namespace {

constexpr double kSlopeBound = 1e-6;  // relative; they are rounded to fp32

std::vector<double> to_doubles(const json::array& array) {
  return json::value_to<std::vector<double>>(json::value(array));
}

// One case from its state0 ("with_state") or from zero ("no_state").
struct Case {
  const Expected& expected;
  std::string name;
  bool with_state;
  std::vector<double> slopes;
  double scale;

  std::string result(const std::string& what) const {
    return fmt::format("{}.{}.{}", name, with_state ? "with_state" : "no_state", what);
  }
  // [B, T, H, d] -> [B T, H, d], a leaf.
  at::Tensor tokens(const std::string& what) const {
    return expected.get(name + "." + what).flatten(0, 1).requires_grad_();
  }
};

Sequences sequences_of(const Case& c) {
  if (c.expected.contains(c.name + ".cu_seqlens")) {
    const at::Tensor bounds = c.expected.get(c.name + ".cu_seqlens");
    const int64_t* data = bounds.const_data_ptr<int64_t>();
    return Sequences({data, data + bounds.numel()}, at::kCPU);
  }
  return Sequences(row_offsets(c.expected.get(c.name + ".q").select(3, 0).select(2, 0)), at::kCPU);
}

void check_case(const Case& c, Kernels kernels, Findings& findings) {
  LightningArgs args{c.tokens("q"), c.tokens("k"), c.tokens("v"), c.slopes, c.scale, {}};
  if (c.with_state) args.state = c.expected.get(c.name + ".state0").requires_grad_();
  const LightningResult result = lightning_attention(args, sequences_of(c), kernels);
  ((result.o * c.tokens("do").detach()).sum() +
   (result.state * c.expected.get(c.name + ".dstate")).sum())
      .backward();
  std::vector<std::pair<std::string, at::Tensor>> results = {{"o", result.o},
                                                             {"state", result.state},
                                                             {"dq", args.q.grad()},
                                                             {"dk", args.k.grad()},
                                                             {"dv", args.v.grad()}};
  if (c.with_state) results.emplace_back("dstate0", args.state.grad());
  for (const auto& [what, got] : results) {
    const std::string name = c.result(what);
    if (!c.expected.contains(name)) continue;  // some cases hold only o and state
    const at::Tensor want = c.expected.get(name);
    findings.tensor(in_form(name, kernels), got.reshape(want.sizes()), want);
  }
}

void check_slopes(const std::string& file, Findings& findings) {
  const json::value slopes = read_json(file);
  for (const auto& [heads, entry] : slopes.as_object()) {
    const auto want = to_doubles(json_get<json::array>(entry.as_object(), "fp32", file));
    findings.relative(fmt::format("slopes of {} heads", std::string(heads)),
                      at::tensor(alibi_slopes(std::stoll(std::string(heads))), at::kDouble),
                      at::tensor(want, at::kDouble), kSlopeBound);
  }
}

}  // namespace

void check_lightning(const std::filesystem::path& folder, Findings& findings) {
  const Expected expected(folder / "expected.safetensors");
  const std::string file = (folder / "cases.json").string();
  const json::value cases = read_json(file);
  for (const auto& [key, entry] : cases.as_object()) {
    const std::string name(key);
    const json::object& object = entry.as_object();
    for (const bool with_state : {true, false}) {
      const Case c{expected, name, with_state,
                   to_doubles(json_get<json::array>(object, "slopes", file)),
                   json_get<double>(object, "scale", file)};
      if (expected.names(c.result("")).empty()) continue;
      for (const Kernels kernels : place().forms) check_case(c, kernels, findings);
    }
  }
  check_slopes((folder / "slopes.json").string(), findings);
  expected.note_rest(findings);
}

}  // namespace halo::golden
