// golden ROOT: recomputes every folder of a tree of golden fixtures and prints a line for each, its
// worst error and that error's bound. Exit 0 if all are within bounds, 1 if not, 2 for wrong usage.
// golden --device cuda ROOT: models and stage losses alone, in fp32 on a GPU.
// golden ROOT MODEL: the folder smollm2 alone, with MODEL, a directory that `halo import` made.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <functional>

#include "halo/base/check.h"
#include "halo/base/settings_io.h"
#include "halo/runtime/machine.h"
#include "tests/golden/forms.h"

namespace halo::golden {
namespace {

namespace fs = std::filesystem;

struct Unit {
  std::string name;
  std::function<void(Findings&)> check;
};

std::vector<fs::path> folders_in(const fs::path& folder) {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  return folders;
}

// A model, or a folder of models.
void add_models(const fs::path& folder, const std::string& name, std::vector<Unit>& units) {
  const std::vector<fs::path> inside = folders_in(folder);
  if (fs::exists(folder / "config.json") || inside.empty()) {
    units.push_back({name, [=](Findings& findings) { check_model(folder, findings); }});
    return;
  }
  for (const fs::path& model : inside) {
    add_models(model, name + "/" + model.filename().string(), units);
  }
}

void add_tokenizers(const fs::path& folder, const std::string& name, std::vector<Unit>& units) {
  for (const std::string& tokenizer : tokenizer_names(folder)) {
    units.push_back({name + "/" + tokenizer,
                     [=](Findings& findings) { check_tokenizer(folder, tokenizer, findings); }});
  }
}

void add_chat_templates(const fs::path& folder, const std::string& name, std::vector<Unit>& units) {
  for (const std::string& chat : chat_template_names(folder)) {
    units.push_back({name + "/" + chat,
                     [=](Findings& findings) { check_chat_template(folder, chat, findings); }});
  }
}

void add_folder(const fs::path& folder, std::vector<Unit>& units) {
  struct Form {
    const char* name;
    void (*check)(const fs::path&, Findings&);
  };
  static constexpr Form kFormsByName[] = {
      {"transfer", check_transfer},      {"stage-losses", check_stage_losses},
      {"lightning-op", check_lightning}, {"logit-scale", check_logit_scale},
      {"lr-schedule", check_schedule},   {"rope", check_rope},
      {"selection", check_selection},
  };
  const std::string name = folder.filename().string();
  static constexpr const char* kModelFolders[] = {"hypenet-", "qwen2-",   "qwen3-",
                                                  "llama",    "mistral-", "smollm-"};
  if (std::ranges::any_of(kModelFolders, [&](auto begin) { return name.starts_with(begin); })) {
    return add_models(folder, name, units);
  }
  if (place().device.is_cuda() && name != "stage-losses") return;  // the rest has no GPU form
  if (name == "smollm2") {
    units.push_back({name, [](Findings& findings) {
                       findings.not_built("takes the model itself: tests/golden/smollm2_test.sh");
                     }});
    return;
  }
  if (!tokenizer_names(folder).empty()) return add_tokenizers(folder, name, units);
  if (!chat_template_names(folder).empty()) return add_chat_templates(folder, name, units);
  for (const Form& form : kFormsByName) {
    if (name != form.name) continue;
    units.push_back({name, [folder, &form](Findings& findings) { form.check(folder, findings); }});
    return;
  }
  units.push_back({name, [](Findings& findings) { findings.not_built("no form has this name"); }});
}

std::vector<Unit> units_of(const fs::path& root, const fs::path& smollm2) {
  std::vector<Unit> units;
  if (!smollm2.empty()) {
    units.push_back({"smollm2", [=](Findings& findings) {
                       check_smollm2(root / "smollm2", smollm2, findings);
                     }});
    return units;
  }
  for (const fs::path& folder : folders_in(root)) add_folder(folder, units);
  std::ranges::sort(units, {}, &Unit::name);
  return units;
}

bool check_tree(const fs::path& root, const fs::path& smollm2) {
  const std::vector<Unit> units = units_of(root, smollm2);
  int64_t passed = 0, not_built = 0, failed = 0;
  for (const Unit& unit : units) {
    Findings findings;
    try {
      unit.check(findings);
    } catch (const std::exception& error) {
      findings.failed(error.what());
    }
    ++(!findings.passed() ? failed : findings.was_built() ? passed : not_built);
    fmt::print("{}\n", findings.line(unit.name));
    std::fflush(stdout);
  }
  fmt::print("{} fixtures: {} within bounds, {} not, {} left out\n", units.size(), passed, failed,
             not_built);
  if (passed + failed == 0) fmt::print("{}: nothing there could be compared\n", root.string());
  return failed == 0 && passed > 0;
}

}  // namespace
}  // namespace halo::golden

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  try {
    if (words.size() >= 2 && words[0] == "--device") {
      halo::RunRecipe run;
      halo::set_setting(run, "device=" + words[1]);
      const at::Device device = halo::open_machine(run).device;
      if (device.is_cuda()) halo::golden::place() = {device, {halo::Kernels::kFast}};
      words.erase(words.begin(), words.begin() + 2);
    }
    if (words.empty() || words.size() > 2) {
      fmt::print(stderr,
                 "usage: golden [--device cuda] ROOT [MODEL], a tree as "
                 "tests/golden/fixtures/README.md says\n");
      return 2;
    }
    return halo::golden::check_tree(words[0], words.size() == 2 ? words[1] : "") ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "golden: {}\n", error.what());
    return 1;
  }
}
