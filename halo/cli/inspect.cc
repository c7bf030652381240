// halo inspect: what a model directory holds, how two differ, what a conversion got wrong.
#include "halo/exchange/inspect.h"

#include <algorithm>
#include <iostream>

#include "halo/base/progress.h"
#include "halo/cli/commands.h"

namespace halo {
namespace {

struct InspectArgs {
  std::string model, other, teacher;
  bool diff = false, audit = false, json = false;
};

int64_t integer(const json::object& object, const char* key) {
  return object.at(key).to_number<int64_t>();
}

std::string text(const json::value& value) {
  return value.is_string() ? std::string(value.get_string()) : json::serialize(value);
}

void print_model(const json::object& found) {
  const json::object& config = found.at("config").get_object();
  std::cout << fmt::format(
      "{}: {} layers, hidden size {}, {} heads, {} key/value heads of {}, vocabulary {}\n"
      "parameters   {}, {} bytes\n"
      "mixers       {}   (A attention, - lightning)\n"
      "keys, values {} bytes a token (bf16)\n"
      "states       {} bytes a sequence (fp32)\n",
      text(found.at("model_type")), integer(found, "layers"), text(config.at("hidden_size")),
      text(config.at("num_attention_heads")), text(config.at("num_key_value_heads")),
      text(config.at("head_dim")), text(config.at("vocab_size")), integer(found, "parameters"),
      integer(found, "weight_bytes"), text(found.at("mixers")),
      integer(found, "kv_bytes_per_token_bf16"), integer(found, "state_bytes_per_sequence"));
  for (const json::value& misfit : found.at("misfits").get_array())
    std::cout << "does not fit: " << text(misfit) << "\n";
  std::cout << "\nconfiguration\n";
  for (const auto& [key, value] : config)
    if (key != "mixer_types")
      std::cout << fmt::format("  {:<28} {}\n", std::string(key), text(value));
  std::cout << fmt::format("\n{:<52} {:<5} {:<16} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "tensor",
                           "type", "shape", "min", "max", "mean", "rms", "not finite");
  for (const json::value& value : found.at("tensors").get_array()) {
    const json::object& tensor = value.get_object();
    std::cout << fmt::format("{:<52} {:<5} {:<16}", text(tensor.at("name")),
                             text(tensor.at("dtype")), text(tensor.at("shape")));
    for (const char* key : {"min", "max", "mean", "rms"})
      std::cout << fmt::format(" {:>10.4g}", tensor.at(key).to_number<double>());
    std::cout << fmt::format(" {:>10}\n", integer(tensor, "non_finite"));
  }
}

void print_diff(const json::object& found, const std::string& a, const std::string& b) {
  const json::array& different = found.at("different").get_array();
  std::cout << fmt::format("{} tensors equal, {} different, {} only in {}, {} only in {}\n",
                           integer(found, "equal"), different.size(),
                           found.at("only_a").get_array().size(), a,
                           found.at("only_b").get_array().size(), b);
  for (const auto& [key, value] : found.at("config").get_object())
    std::cout << fmt::format("config.json: {}: {} | {}\n", std::string(key),
                             json::serialize(value.at(0)), json::serialize(value.at(1)));
  for (const json::value& name : found.at("only_a").get_array())
    std::cout << fmt::format("only in {}: {}\n", a, text(name));
  for (const json::value& name : found.at("only_b").get_array())
    std::cout << fmt::format("only in {}: {}\n", b, text(name));
  for (const json::value& value : different) {
    const json::object& tensor = value.get_object();
    if (!tensor.contains("relative")) {
      std::cout << fmt::format("{:<52} shapes {}\n", text(tensor.at("name")),
                               json::serialize(tensor.at("shape")));
      continue;
    }
    std::cout << fmt::format(
        "{:<52} relative {:<10.3g} largest {:<10.3g} elements {}{}\n", text(tensor.at("name")),
        tensor.at("relative").to_number<double>(), tensor.at("max").to_number<double>(),
        integer(tensor, "changed"),
        tensor.at("dtype").is_array() ? "  types " + json::serialize(tensor.at("dtype")) : "");
  }
}

void run_audit(const InspectArgs& args) {
  std::vector<Finding> findings;
  {
    const Progress phase("audit");
    findings = audit_conversion(args.model, args.teacher);
  }
  if (args.json) {
    json::array out;
    for (const Finding& finding : findings)
      out.push_back(json::object{{"check", finding.check},
                                 {"sentence", finding.sentence},
                                 {"tensors", json::value_from(finding.tensors)}});
    std::cout << format_json(json::object{{"findings", out}}) << "\n";
    return;
  }
  if (findings.empty()) std::cout << "nothing found\n";
  for (const Finding& finding : findings) {
    constexpr size_t kShown = 6;  // --json has them all
    const size_t shown = std::min(finding.tensors.size(), kShown);
    std::cout << finding.check << ": " << finding.sentence;
    for (size_t i = 0; i < shown; ++i) std::cout << (i == 0 ? ": " : ", ") << finding.tensors[i];
    if (shown < finding.tensors.size())
      std::cout << fmt::format(" and {} more", finding.tensors.size() - shown);
    std::cout << "\n";
  }
}

void run_inspect(const InspectArgs& args) {
  if (args.diff + args.audit > 1) throw UsageError("halo inspect: --diff or --audit, not both");
  if (args.diff != !args.other.empty())
    throw UsageError("halo inspect: two directories go with --diff, one without");
  if (args.audit != !args.teacher.empty())
    throw UsageError("halo inspect: --audit STUDENT and --teacher T go together");
  if (args.audit) return run_audit(args);
  json::object found;
  {
    const Progress phase("reading " + args.model);
    found = args.diff ? diff_models(args.model, args.other) : inspect_model(args.model);
  }
  if (args.json) {
    std::cout << format_json(found) << "\n";
  } else if (args.diff) {
    print_diff(found, args.model, args.other);
  } else {
    print_model(found);
  }
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto args = std::make_shared<InspectArgs>();
  CLI::App* command = app.add_subcommand(
      "inspect", "Configuration, sizes and tensors of a model directory; two compared; an audit");
  command->add_option("model", args->model, "Hugging Face directory")->required();
  command->add_option("other", args->other, "with --diff: the directory to compare with");
  command->add_flag("--diff", args->diff, "which tensors and settings differ, and by how much");
  command->add_flag("--audit", args->audit, "what a conversion got wrong; needs --teacher");
  command->add_option("--teacher", args->teacher, "with --audit: what it was converted from");
  command->add_flag("--json", args->json, "print JSON");
  command->footer(
      "Examples: halo inspect runs/demo/model\n"
      "          halo inspect --diff runs/demo/distill/step-90 runs/demo/model\n"
      "          halo inspect --audit runs/demo/model --teacher demo/teacher");
  command->callback([args] { run_inspect(*args); });
}

}  // namespace halo
