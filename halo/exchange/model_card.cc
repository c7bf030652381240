#include "halo/exchange/model_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "halo/base/check.h"
#include "halo/formats/model_config.h"
#include "halo/report/run_files.h"
#include "halo/report/sections.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

std::string number_list(const std::vector<int64_t>& numbers) {
  return fmt::format("{}", fmt::join(numbers, ", "));
}

// In a table or a paragraph: no character that ends a cell or opens markup.
std::string escape_markdown(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n' || c == '\r') {
      out += ' ';
      continue;
    }
    if (std::string_view("\\`*_|<>[]").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::string out;
  for (size_t r = 0; r < rows.size(); ++r) {
    out += fmt::format("| {} |\n", fmt::join(rows[r], " | "));
    if (r == 0) {
      out += "|---|";
      for (size_t c = 1; c < rows[r].size(); ++c) out += "---:|";
      out += "\n";
    }
  }
  return out + "\n";
}

std::string head(const std::string& title, const ModelConfig& config) {
  const auto kept = config.attention_layers();
  std::string out = fmt::format(
      "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- hypenet\n"
      "- linear-attention\n- long-context\n---\n\n# {}\n\n",
      escape_markdown(title));
  out += fmt::format(
      "A HypeNet: a Transformer converted into a hybrid. Of its {} layers {} use softmax attention "
      "({}{}), the others Lightning attention: a linear recurrence whose state has one size at "
      "every length.\n\n",
      config.num_layers, kept.size(), kept.empty() ? "none" : "layers " + number_list(kept),
      config.attn_use_rope ? "" : "; without positions");
  const std::string scale = json::serialize(model_config_to_json(config)["attn_logits_scaling"]);
  if (config.attn_logits_scaling.kind == LogitScale::Kind::kLogPosition) {
    out += fmt::format(
        "Queries of the attention layers at position t are multiplied by ln(t + a) / ln(a), "
        "a = {:.0f}.\n\n",
        config.attn_logits_scaling.a);
  } else if (config.attn_logits_scaling.kind == LogitScale::Kind::kConstant) {
    out += fmt::format("Queries of the attention layers are multiplied by {}.\n\n", scale);
  }
  return out;
}

std::string usage() {
  return "## Use\n\n"
         "```python\n"
         "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
         "path = \"path/to/this/folder\"\n"
         "tokenizer = AutoTokenizer.from_pretrained(path)\n"
         "model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)\n"
         "inputs = tokenizer(\"It was\", return_tensors=\"pt\")\n"
         "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))\n"
         "```\n\n"
         "The code of the model (`modeling_hypenet.py`) is plain PyTorch: it needs neither a GPU "
         "nor "
         "other packages, and runs under transformers 4.57 and 5. Batches may be padded on either "
         "side; give `attention_mask`. A recurrent state cannot be wound back, so there is no "
         "assisted decoding. `halo generate` runs the same folder without Python.\n\n";
}

std::string memory(const ModelConfig& config) {
  // The model it was made from: attention everywhere.
  const int64_t attention = static_cast<int64_t>(config.attention_layers().size());
  const int64_t all = config.num_layers * 4 * config.num_kv_heads * config.head_dim;
  return "## Memory of a sequence\n\n" +
         table({{"", "bytes"},
                {"keys and values, a token (bf16)",
                 format_figure(double(config.kv_bytes_per_token()))},
                {fmt::format("the same with attention in all {} layers", config.num_layers),
                 format_figure(double(all))},
                {fmt::format("states of {} Lightning layers (fp32), at every length",
                             config.num_layers - attention),
                 format_figure(double(config.state_bytes()))}});
}

std::string text_figures(const JsonView& teacher, const JsonView& student) {
  std::vector<std::vector<std::string>> rows = {{"held-out text", "this model", "teacher"}};
  const auto row = [&](const char* what, const char* key, const char* error) {
    if (!student.has(key) && !teacher.has(key)) return;
    rows.push_back({what, format_estimate(student.number(key), student.number(error), 3),
                    format_estimate(teacher.number(key), teacher.number(error), 3)});
  };
  row("loss, nats a token", "loss", "stderr");
  row("bits a byte", "bits_per_byte", "");
  row("KL from the teacher, nats a token", "kl", "kl_stderr");
  if (rows.size() == 1) return "";
  std::string out = table(rows);
  if (student.has("n")) {
    out +=
        fmt::format("Over {} tokens of {} documents; ± is a standard error over documents.\n\n",
                    format_figure(student.number("n")), format_figure(student.number("clusters")));
  }
  return out;
}

std::string needle_figures(const JsonView& summary) {
  const JsonView student = summary.object("student");
  const std::vector<std::pair<std::string, JsonView>> models = {
      {"this model", student.object("needle")},
      {"without its logit scale", student.object("needle_unscaled")},
      {"teacher", summary.object("teacher").object("needle")}};
  std::set<int64_t> lengths;
  for (const auto& [name, needle] : models)
    for (const auto& [length, scores] : by_length(needle)) lengths.insert(length);
  if (lengths.empty()) return "";
  std::vector<std::vector<std::string>> rows = {{"needles found at a length of"}};
  for (const auto& [name, needle] : models)
    if (needle) rows[0].push_back(name);
  for (const int64_t length : lengths) {
    rows.push_back({format_figure(double(length)) + " tokens"});
    for (const auto& [name, needle] : models) {
      if (!needle) continue;
      const JsonView scores = needle.object(std::to_string(length));
      rows.back().push_back(format_estimate(scores.number("accuracy"), scores.number("stderr"), 3));
    }
  }
  return table(rows);
}

std::string measured(const JsonView& summary) {
  if (!summary) return "## Measured\n\nNothing: the model was exported without its run.\n\n";
  std::string out = "## Measured\n\n";
  const double length = summary.number("training_length");
  if (std::isfinite(length))
    out +=
        fmt::format("No sequence longer than {} tokens was trained on.\n\n", format_figure(length));
  out += text_figures(summary.object("teacher"), summary.object("student"));
  return out + needle_figures(summary);
}

std::string provenance(const RunFiles& run) {
  std::vector<std::vector<std::string>> rows = {{"", "value"}};
  if (const JsonView environment = run.environment.view()) {
    for (const auto& [key, value] : environment.members()) {
      rows.push_back({escape_markdown(std::string_view(key)),
                      escape_markdown(value.is_string() ? std::string(value.get_string())
                                                        : json::serialize(value))});
    }
  }
  const JsonView summary = run.summary.view();
  if (const JsonView tokens = summary.object("tokens_per_stage")) {
    for (const auto& [stage, count] : tokens.members()) {
      rows.push_back({fmt::format("tokens of stage {}", escape_markdown(std::string_view(stage))),
                      format_figure(tokens.number(stage))});
    }
  }
  if (summary.has("seconds"))
    rows.push_back({"time of the conversion", format_duration(summary.number("seconds"))});
  std::string out = "## Where it comes from\n\n";
  if (rows.size() > 1) out += table(rows);
  if (!run.recipe.empty())
    out += "<details><summary>The recipe</summary>\n\n```toml\n" + run.recipe +
           "```\n\n</details>\n\n";
  return out;
}

// Figures of another model would be worse than none.
void check_is_student_of(const JsonView& summary, const ModelConfig& config) {
  const JsonView student = summary.object("student");
  const json::object own = model_config_to_json(config);
  for (const char* key : {"mixer_types", "attn_logits_scaling"}) {
    if (student && student.members().contains(key) && student.members().at(key) == own.at(key))
      continue;
    throw_error("{}: the student there has another '{}' than the model; name the run it came from",
                summary.file(), key);
  }
}

}  // namespace

std::string model_card(const std::string& title, const ModelConfig& config, const fs::path& run) {
  const RunFiles files = run.empty() ? RunFiles() : read_run(run);
  if (!run.empty() && files.summary.path.empty()) {
    throw_error("{}: there is no summary.json; finish the run with `halo convert --resume`",
                run.string());
  }
  if (!run.empty()) check_is_student_of(files.summary.view(), config);
  std::string out = head(title, config) + usage() + memory(config) + measured(files.summary.view());
  if (!run.empty()) out += provenance(files);
  return out +
         "## Licence\n\nThe weights are made from the teacher's, whose licence goes on to hold for "
         "them. The Python files are Apache-2.0.\n";
}

}  // namespace halo
