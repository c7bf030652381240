// What each stage may change, and what its gate is for: every gate is passed by the trained model
// and failed by the weights the stage began with.
#include <gtest/gtest.h>

#include <numeric>

#include "ATen/ATen.h"
#include "halo/base/files.h"
#include "halo/pipeline/convert.h"
#include "halo/pipeline/plan.h"
#include "halo/stages/choose_layers.h"
#include "halo/stages/transfer.h"
#include "halo/train/checkpoint.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

fs::path model(const std::string& stage) {
  return stage_model(World::get().reference() / stage);
}

json::object result(const fs::path& stage) {
  return read_json(stage / "result.json").as_object();
}

double gate_value(const fs::path& stage) {
  return result(stage).at("gate").at("value").to_number<double>();
}

// Names of the tensors in `after` that are not bit-equal to the same ones in `before`; `kept`
// counts the others.
struct Change {
  Words changed, kept;
};

Change compare(const fs::path& before, const fs::path& after) {
  const SafetensorsFile a(before / "model.safetensors"), b(after / "model.safetensors");
  Change change;
  for (const TensorView& tensor : b.tensors()) {
    const TensorView& old = a.get(tensor.name);
    const bool equal = std::ranges::equal(old.bytes, tensor.bytes);
    (equal ? change.kept : change.changed).push_back(tensor.name);
  }
  return change;
}

bool in_mixer(const std::string& name) {
  return name.find(".self_attn.") != std::string::npos;
}

TEST(Stages, AlignChangesTheMixersAlone) {
  const Change change = compare(model("transfer"), model("align"));
  EXPECT_EQ(change.changed.size(), 4u * 8);  // q, k, v, z, o and three norms
  for (const std::string& name : change.changed) EXPECT_TRUE(in_mixer(name)) << name;
  for (const std::string& name : change.kept) EXPECT_FALSE(in_mixer(name)) << name;
}

TEST(Stages, AlignAttentionChangesTheMixersAlone) {
  const SafetensorsFile teacher(World::get().teacher() / "model.safetensors"),
      aligned(model("align-attention") / "model.safetensors");
  for (const TensorView& tensor : aligned.tensors()) {
    at::Tensor start;
    if (tensor.name.find("o_gate") == std::string::npos) {
      start = to_tensor(teacher.get(tensor.name));
      if (tensor.name.find("o_proj") != std::string::npos) start = start * 2;
    } else {
      start = at::zeros(tensor.shape);
    }
    EXPECT_EQ(at::equal(start, to_tensor(tensor)), !in_mixer(tensor.name)) << tensor.name;
  }
}

TEST(Stages, SelectTakesEveryMixerAsItIs) {
  const SafetensorsFile lightning(model("align") / "model.safetensors"),
      attention(model("align-attention") / "model.safetensors"),
      hybrid(model("select") / "model.safetensors");
  const ModelConfig config = read_model_config(model("select"));
  ASSERT_EQ(config.attention_layers().size(), 1u);
  const std::string kept = fmt::format("model.layers.{}.self_attn.", config.attention_layers()[0]);
  for (const TensorView& tensor : hybrid.tensors()) {
    const SafetensorsFile& source = tensor.name.starts_with(kept) ? attention : lightning;
    EXPECT_TRUE(std::ranges::equal(source.get(tensor.name).bytes, tensor.bytes)) << tensor.name;
  }
}

TEST(Stages, SelectKeepsTheLayersThatAreGiven) {
  const fs::path out = World::get().folder("given");
  const auto run = [&](const std::string& layers) {
    return run_halo(Words{"select", "--recipe", World::get().recipe().string(), "--student",
                          model("align").string(), "--attention", model("align-attention").string(),
                          "--out", out.string(), "--set", "select.layers=" + layers, "--set",
                          "gates.select_ratio=2"});
  };
  expect_error(run("[1,0]"), 1, {"select.layers", "ascending"});
  expect_error(run("[0,99]"), 1, {"select.layers names layer 99"});
  expect_error(run("[-1]"), 1, {"select.layers", "expected 0 to"});
  const Outcome given = run("[0,2]");
  ASSERT_EQ(given.code, 0) << given.err;
  EXPECT_EQ(read_model_config(stage_model(out)).attention_layers(), (std::vector<int64_t>{0, 2}));
}

// A student whose decays are learned begins as the one of fixed decays, goes through every stage,
// is judged, runs and is quantized; the published format is not for it.
TEST(Stages, TrainLearnedDecays) {
  const fs::path folder = World::get().folder("learned-decay"), run = folder / "run";
  Process process = convert(run, false);
  process.arguments.insert(process.arguments.end(), {"--set", "transfer.learned_decay=true"});
  const Outcome outcome = run_halo(process);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto decay_of = [&](const std::string& stage, const char* tensor) {
    const fs::path directory = stage_model(run / stage);
    const ModelConfig config = read_model_config(directory);
    EXPECT_TRUE(config.lightning_learned_decay) << stage;
    const auto lightning = std::ranges::find(config.mixer_types, MixerType::kLightning);
    const SafetensorsFile weights(directory / "model.safetensors");
    return to_tensor(weights.get(fmt::format("model.layers.{}.self_attn.decay_proj.{}",
                                             lightning - config.mixer_types.begin(), tensor)));
  };
  for (const char* tensor : {"weight", "bias"}) {
    EXPECT_EQ(decay_of("transfer", tensor).abs().max().item<float>(), 0) << tensor;
    EXPECT_GT(decay_of("align", tensor).abs().max().item<float>(), 0) << tensor;
    for (const auto& [stage, before] :
         {std::pair("distill", "select"), std::pair("finetune", "distill"),
          std::pair("on-policy", "finetune")}) {
      EXPECT_FALSE(at::equal(decay_of(stage, tensor), decay_of(before, tensor))) << stage;
    }
    EXPECT_TRUE(at::equal(decay_of("scale", tensor), decay_of("on-policy", tensor)));
  }
  const auto number = [](const fs::path& stage, const char* key) {
    return result(stage).at(key).to_number<double>();
  };
  const fs::path fixed = World::get().reference();
  EXPECT_NEAR(number(run / "transfer", "held_out_kl"), number(fixed / "transfer", "held_out_kl"),
              1e-5);
  EXPECT_NEAR(number(run / "align", "first_loss") / number(fixed / "align", "first_loss"), 1, 0.2);

  const std::string model = (run / "model").string(), int8 = (folder / "int8").string();
  const Words text = {"The old dog", "--max-tokens", "20"};
  const auto generate = [&](const std::string& directory, const Words& options) {
    Words words = {"generate", directory};
    words.insert(words.end(), text.begin(), text.end());
    words.insert(words.end(), options.begin(), options.end());
    return output_of(words);
  };
  const std::string said = generate(model, {});
  EXPECT_EQ(generate(model, {"--draft-tokens", "0"}), said);
  EXPECT_EQ(generate(model, {"--kernels", "reference"}), said);
  output_of({"quantize", model, "--out", int8});
  EXPECT_FALSE(generate(int8, {}).empty());
  expect_error(run_halo({"export", model, "--out", (folder / "export").string()}), 1,
               {"lightning_learned_decay", "transfer.learned_decay", "fixed"});
}

TEST(Stages, DistillFinetuneAndOnPolicyChangeEverything) {
  EXPECT_EQ(compare(model("select"), model("distill")).kept, Words{});
  EXPECT_EQ(compare(model("distill"), model("finetune")).kept, Words{});
  EXPECT_EQ(compare(model("finetune"), model("on-policy")).kept, Words{});
}

TEST(Stages, ScaleAndTheStudentKeepTheWeights) {
  EXPECT_EQ(compare(model("on-policy"), model("scale")).changed, Words{});
  EXPECT_EQ(compare(model("scale"), World::get().reference() / "model").changed, Words{});
  const ModelConfig before = read_model_config(model("on-policy"));
  ModelConfig after = read_model_config(model("scale"));
  // What the rule of the search chose (scale.json) is what the model has.
  const json::value search = read_json(World::get().reference() / "scale/scale.json");
  const std::string chosen(search.at("chosen").as_string());
  EXPECT_EQ(after.attn_logits_scaling.kind, chosen == "none" ? LogitScale::Kind::kNone
                                            : chosen.starts_with("constant")
                                                ? LogitScale::Kind::kConstant
                                                : LogitScale::Kind::kLogPosition)
      << chosen;
  EXPECT_EQ(before.attn_logits_scaling.kind, LogitScale::Kind::kNone);
}

// Closed forms, then steps that a kill does not change; the figure is nearer to the teacher's than
// without them.
TEST(Stages, TransferCalibrates) {
  const fs::path folder = World::get().folder("calibrated");
  const auto run = [&](const std::string& out, const Words& set, const std::string& crash_at) {
    Words words = {"transfer",   "--recipe", World::get().recipe().string(),    "--out",
                   folder / out, "--set",    "transfer.calibration_tokens=1024"};
    for (const std::string& s : set) words.insert(words.end(), {"--set", "transfer." + s});
    return run_halo(Process{words, crash_at});
  };
  const Words calibrated = {"init=calibrated", "calibration_steps=4"};
  ASSERT_EQ(run("whole", calibrated, "").code, 0);
  EXPECT_EQ(run("killed", calibrated, "train.mid_step:3").signal, SIGKILL);
  ASSERT_EQ(run("killed", calibrated, "").code, 0);
  ASSERT_EQ(run("match", {}, "").code, 0);
  ASSERT_EQ(run("closed", {"init=calibrated", "calibration_steps=0"}, "").code, 0);
  const auto weights = [&](const char* out) {
    return read_file(stage_model(folder / out) / "model.safetensors");
  };
  EXPECT_EQ(weights("killed"), weights("whole"));
  EXPECT_NE(weights("closed"), weights("whole"));
  EXPECT_EQ(result(folder / "whole").at("tokens"), 4 * 2048);
  EXPECT_EQ(result(folder / "closed").at("tokens"), 0);
  const auto kl = [&](const char* out) {
    return result(folder / out).at("held_out_kl").to_number<double>();
  };
  EXPECT_LT(kl("whole"), kl("match"));
  EXPECT_FALSE(fs::exists(folder / "whole/calibration/step-4"));
  EXPECT_TRUE(fs::exists(folder / "whole/calibration/metrics.jsonl"));
}

TEST(Stages, TransferGateFailsOnOtherWeights) {
  const StageContext context(context_settings(read_recipe(World::get().recipe(), {})));
  const Model student = context.load(model("transfer"));
  const auto error = [&] {
    return transfer_error(context.teacher(), student.config, *student.store, TransferInit::kMatch);
  };
  EXPECT_EQ(error(), 0);
  // Each tensor that the teacher determines counts; gates and output norms are the student's own.
  int64_t counted = 0;
  for (const ParameterSpec& spec : student.store->specs()) {
    at::Tensor value = student.store->value(spec.name);
    const at::Tensor before = value.clone();
    value.reshape({-1})[0] += 1e-3;
    const bool own = spec.name.find("z_proj") != std::string::npos ||
                     spec.name.find("o_norm") != std::string::npos;
    EXPECT_EQ(error() > 0, !own) << spec.name;
    counted += !own;
    value.copy_(before);
  }
  EXPECT_EQ(counted, 2 + 4 * (6 + 5));  // embedding, final norm; a layer's mixer and the rest
  // What the stage begins with: a store that nothing was copied to.
  const ParameterStore empty(student.store->specs(), ParameterStore::Use::kFrozen, at::kFloat,
                             at::kCPU);
  EXPECT_GT(transfer_error(context.teacher(), student.config, empty, TransferInit::kMatch), 0);
}

// A valid Hugging Face directory, with the teacher's tokenizer byte for byte, metrics and a gate.
TEST(Stages, EachLeavesAModelItsMetricsAndItsGate) {
  const std::string tokenizer = read_file(World::get().teacher() / "tokenizer.json");
  for (const std::string& stage : kStages) {
    const fs::path out = World::get().reference() / stage;
    EXPECT_EQ(read_file(model(stage) / "tokenizer.json"), tokenizer) << stage;
    const Model loaded =
        load_model(model(stage), ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
    EXPECT_TRUE(loaded.config.is_hypenet()) << stage;
    const json::object gate = result(out).at("gate").as_object();
    EXPECT_EQ(gate.at("passed"), true) << stage;
    EXPECT_TRUE(gate.at("value").is_number() && gate.at("limit").is_number()) << stage;
    const bool trains = result(out).at("tokens").as_int64() > 0;
    EXPECT_EQ(fs::exists(out / "metrics.jsonl"), trains) << stage;
  }
  EXPECT_TRUE(fs::exists(World::get().reference() / "select" / "selection.json"));
  EXPECT_TRUE(fs::exists(World::get().reference() / "scale" / "scale.json"));
}

// Each way to start; `match` is nearer to the teacher than `identity`, `lsq` nearer still.
TEST(Stages, TransferInitsByName) {
  const StageContext context(context_settings(read_recipe(World::get().recipe(), {})));
  std::map<std::string, double> variance;
  for (const std::string init : {"random-gates", "identity", "match", "lsq"}) {
    const fs::path out = World::get().folder("init") / init;
    const Outcome outcome = run_halo({"transfer", "--recipe", World::get().recipe().string(),
                                      "--out", out.string(), "--set", "transfer.init=" + init});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const Model student = context.load(stage_model(out));
    std::vector<Mixer> mixers;
    for (const LayerWeights& layer : student.weights.layers) mixers.push_back(layer.mixer);
    const std::vector<double> layers = explained_variance(context, mixers, *student.store);
    variance[init] = std::accumulate(layers.begin(), layers.end(), 0.0);
  }
  EXPECT_LT(variance["identity"], variance["match"]);
  EXPECT_LT(variance["match"], variance["lsq"]);
}

struct Rule {
  std::string name;
  bool scored;     // has a score a layer
  bool resampled;  // has an uncertainty
  size_t candidates;
};

Words select(const std::string& rule, const fs::path& out) {
  return {"select",
          "--recipe",
          World::get().recipe().string(),
          "--student",
          model("align").string(),
          "--out",
          out.string(),
          "--set",
          "select.keep=2",
          "--set",
          "select.rule=" + rule};
}

class SelectRule : public testing::TestWithParam<Rule> {
 protected:
  // What the choice must be like, whatever it is.
  static void check(const Rule& rule, const std::vector<int64_t>& layers, size_t candidates,
                    const std::vector<double>& scores, const std::vector<double>& frequency) {
    ASSERT_EQ(layers.size(), 2u);
    EXPECT_LT(layers[0], layers[1]);
    EXPECT_EQ(candidates, rule.candidates);
    ASSERT_EQ(scores.size(), rule.scored ? 4u : 0u);
    for (size_t i = 0; i < scores.size(); ++i) {
      if (!std::ranges::count(layers, static_cast<int64_t>(i))) {
        EXPECT_LE(scores[i], std::min(scores[layers[0]], scores[layers[1]]));
      }
    }
    ASSERT_EQ(frequency.size(), rule.resampled ? 4u : 0u);
    if (rule.resampled) {
      EXPECT_NEAR(std::accumulate(frequency.begin(), frequency.end(), 0.0), 2, 1e-9);
    }
  }
};

// Rules that go by needles, on the same aligned weights. The command refuses this teacher, which
// finds none; the rules themselves do not ask.
class SelectByNeedles : public SelectRule {};

TEST_P(SelectByNeedles, KeepsTwoLayersAndSaysHowSure) {
  const Rule& rule = GetParam();
  Words set = {"select.keep=2", "select.rule=" + rule.name.substr(0, rule.name.find('_'))};
  if (rule.name == "joint_greedy") set.push_back("select.max_sets=1");
  if (rule.name == "gate") set.push_back("select.gate_tokens=4096");
  const Recipe recipe = read_recipe(World::get().recipe(), set);
  const StageContext context(context_settings(recipe));
  const Model aligned = context.load(model("align")),
              attention = context.load(model("align-attention"));
  const Candidates candidates(recipe.select, context, aligned.weights, attention.weights);
  StageArgs args;
  args.name = "select";
  args.out = World::get().folder("rule") / "chosen";
  const LayerChoice choice = choose_layers(recipe.select, candidates, context, 2, args);
  check(rule, choice.layers, choice.candidates.size(), choice.scores, choice.frequency);
  EXPECT_EQ(choose_layers(recipe.select, candidates, context, 2, args).scores, choice.scores);

  const fs::path out = World::get().folder("rule") / "out";
  Words words = select("joint", out);
  for (const std::string& s : set) words.insert(words.end(), {"--set", s});
  expect_error(run_halo(words), 1, {"the teacher finds no needles", "select.rule = \"kl\""});
  EXPECT_FALSE(fs::exists(out / "result.json"));
  words.insert(words.end(), {"--set", "select.layers=[0,2]"});  // chosen by nobody
  EXPECT_EQ(run_halo(words).code, 0);
}

// Of 4 layers there are 6 pairs. Greedy: 4 single layers, 3 pairs with the best, and by exchanges
// at most the 3 that are left.
INSTANTIATE_TEST_SUITE_P(Stages, SelectByNeedles,
                         testing::Values(Rule{"joint", false, true, 6},
                                         Rule{"joint_greedy", false, true, 9},
                                         Rule{"recall-ratio", true, true, 4},
                                         Rule{"recall", true, true, 4},
                                         Rule{"gate", true, false, 0}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::erase(name, '-');
                           return name;
                         });

// The others by name, kept layers as the teacher has them.
TEST_P(SelectRule, KeepsTwoLayersAndSaysHowSure) {
  const Rule& rule = GetParam();
  const fs::path out = World::get().folder("rule") / "out";
  const Outcome outcome = run_halo(select(rule.name, out));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json::object selection = read_json(out / "selection.json").as_object();
  const auto layers = json::value_to<std::vector<int64_t>>(selection.at("layers"));
  check(rule, layers, selection.at("candidates").as_array().size(),
        json::value_to<std::vector<double>>(selection.at("scores")),
        json::value_to<std::vector<double>>(selection.at("frequency")));
  EXPECT_EQ(read_model_config(stage_model(out)).attention_layers(), layers);
  // The kept mixers are the teacher's own, o_proj doubled against the gate that starts at a half.
  const SafetensorsFile teacher(World::get().teacher() / "model.safetensors"),
      hybrid(stage_model(out) / "model.safetensors");
  const std::string kept = fmt::format("model.layers.{}.self_attn.", layers[0]);
  EXPECT_TRUE(at::equal(to_tensor(hybrid.get(kept + "o_proj.weight")),
                        to_tensor(teacher.get(kept + "o_proj.weight")) * 2));
  EXPECT_TRUE(at::equal(to_tensor(hybrid.get(kept + "k_proj.weight")),
                        to_tensor(teacher.get(kept + "k_proj.weight"))));
}

INSTANTIATE_TEST_SUITE_P(Stages, SelectRule,
                         testing::Values(Rule{"kl", true, true, 4}, Rule{"probe", true, true, 4},
                                         Rule{"even", false, false, 0},
                                         Rule{"random", false, false, 0}),
                         [](const auto& info) { return info.param.name; });

// A student may carry a logit scale, from an earlier search: an inference-time setting, off in
// every training stage, and kept in what the stage writes.
TEST(Stages, TrainWithoutTheLogitScale) {
  const fs::path folder = World::get().folder("scaled");
  const auto student = [&](const std::string& name, const LogitScale& scale) {
    const fs::path path = folder / name;
    fs::copy(model("select"), path, fs::copy_options::recursive);
    Model read = load_model(path, ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
    at::NoGradGuard no_grad;
    for (const ParameterSpec& spec : read.store->specs()) {
      if (spec.name.ends_with("q_norm.weight")) read.store->value(spec.name).mul_(3);
    }
    read.config.attn_logits_scaling = scale;
    save_model(path, read.config, *read.store, DType::kF32);
    return path;
  };
  const LogitScale scale{LogitScale::Kind::kLogPosition, 1, 2};
  const fs::path plain = student("plain", {}), scaled = student("scaled", scale);
  {
    at::NoGradGuard no_grad;
    const Batch batch = make_batch(at::arange(200), {0, 200}, at::kCPU);
    const auto hidden = [&](const fs::path& path) {
      return decode(load_model(path, ParameterStore::Use::kFrozen, at::kFloat, at::kCPU).weights,
                    batch);
    };
    EXPECT_FALSE(at::allclose(hidden(plain), hidden(scaled), 0, 1e-2));  // it would be seen
  }
  for (const std::string stage : {"align", "distill", "finetune"}) {
    const auto weights = [&](const fs::path& path) {
      const fs::path out = folder / (stage + path.filename().string());
      const Outcome outcome = run_halo(
          {stage, "--recipe", World::get().recipe().string(), "--student", path.string(), "--out",
           out.string(), "--set", stage + ".tokens=1024", "--set", stage + ".warmup_steps=0"});
      EXPECT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_EQ(read_model_config(stage_model(out)).attn_logits_scaling,
                read_model_config(path).attn_logits_scaling);
      return stage_model(out);
    };
    const fs::path a = weights(plain), b = weights(scaled);
    EXPECT_EQ(compare(a, b).changed, Words{}) << stage;
    EXPECT_EQ(result(a.parent_path()).at("gate"), result(b.parent_path()).at("gate")) << stage;
  }
}

// Runs one stage on its starting model with and without training, under a gate between the two
// figures: only the trained one passes, the other ends with exit code 4 and failed.json.
struct Trained {
  std::string stage, from, gate;
  bool rises;  // training makes the figure larger
};

class TrainedGate : public testing::TestWithParam<Trained> {};

TEST_P(TrainedGate, FailsOnTheStartingWeights) {
  const Trained& c = GetParam();
  const auto run = [&](const std::string& out, const Words& set) {
    Words words = {c.stage, "--recipe", World::get().recipe().string(), "--out", out};
    if (!c.from.empty()) words.insert(words.end(), {"--student", model(c.from).string()});
    for (const std::string& s : set) words.insert(words.end(), {"--set", s});
    return run_halo(words);
  };
  std::string section = c.stage;
  std::replace(section.begin(), section.end(), '-', '_');
  const Words standing = {section + ".learning_rate=1e-30", section + ".min_learning_rate=0"};
  const fs::path folder = World::get().folder("gate"), open = folder / "open";
  ASSERT_EQ(run(open, standing).code, 0);
  const double before = gate_value(open);
  const double after = gate_value(World::get().reference() / c.stage);
  ASSERT_GT(c.rises ? after - before : before - after, 0) << before << " -> " << after;
  const std::string gate = fmt::format("gates.{}={}", c.gate, (before + after) / 2);

  Words closed = standing;
  closed.push_back(gate);
  const fs::path failed = folder / "failed";
  expect_error(run(failed, closed), 4, {c.stage, "gate is not passed", "failed.json"});
  EXPECT_TRUE(fs::exists(failed / "failed.json"));
  EXPECT_FALSE(stage_finished(failed));
  const Outcome trained = run(folder / "trained", {gate});
  EXPECT_EQ(trained.code, 0) << trained.err;
}

INSTANTIATE_TEST_SUITE_P(
    Stages, TrainedGate,
    testing::Values(Trained{"align", "transfer", "align_explained_variance", true},
                    Trained{"align-attention", "", "align_explained_variance", true},
                    Trained{"distill", "select", "distill_kl", false},
                    Trained{"finetune", "distill", "finetune_loss_decrease", true},
                    Trained{"on-policy", "finetune", "on_policy_kl_decrease", true}),
    [](const auto& info) {
      std::string name = info.param.stage;
      std::erase(name, '-');
      return name;
    });

// The gate's figure is the chosen set's loss over that of the weights the stage began with, where
// nothing is kept: those have ratio 1, which a gate below 1 refuses.
TEST(Stages, SelectGateIsRelativeToNothingKept) {
  const fs::path out = World::get().reference() / "select";
  const json::object figures = result(out);
  const auto share = [&](const char* figure) {
    return figures.at("chosen").at(figure).to_number<double>() /
           figures.at("nothing_kept").at(figure).to_number<double>();
  };
  ASSERT_LT(share("kl"), 1.5);
  EXPECT_DOUBLE_EQ(gate_value(out), std::min(share("kl"), share("needle_logprob")));
  EXPECT_LT(gate_value(out), 1);
  EXPECT_LT(GateRecipe().select_ratio, 1);
}

// What one turns on after running out of memory, or off after a driver's error: the run goes on, to
// the same bits.
TEST(Stages, HowAStepRunsMayChangeInARun) {
  const fs::path run = World::get().path("recomputed");
  fs::copy(World::get().reference(), run, fs::copy_options::recursive);
  for (const char* stage : {"distill", "finetune", "on-policy", "scale"}) {
    fs::remove_all(run / stage);
  }
  Process process = convert(run, true);
  process.arguments.insert(process.arguments.end(), {"--set", "run.activation_checkpointing=true",
                                                     "--set", "run.cuda_graphs=false"});
  const Outcome done = run_halo(process);
  ASSERT_EQ(done.code, 0) << done.err;
  for (const char* stage : {"distill", "finetune", "on-policy"}) {
    EXPECT_EQ(read_file(stage_model(run / stage) / "model.safetensors"),
              read_file(stage_model(World::get().reference() / stage) / "model.safetensors"))
        << stage;
  }
}

// Another stage is a row and a function: it is planned, run in its place, the next one starts from
// it, and the figures count it.
TEST(Stages, OneMoreIsARowAndAFunction) {
  std::vector<Stage> stages(pipeline_stages().begin(), pipeline_stages().end());
  Stage polish{.name = "polish",
               .help = "Copies the student",
               .inputs = {{"student", "model directory", {"on-policy", "finetune"}}},
               .training = find_stage(stages, "finetune").training,
               .run = [](const Recipe&, const StageContext& context, const StageArgs& args) {
                 const Model model = context.load(args.inputs[0]);
                 commit_directory(args.out / "step-0", [&](const fs::path& directory) {
                   context.save(directory, model.config, *model.store);
                 });
                 finish_stage(args, {"nothing", 0}, {{"tokens", 77}});
               }};
  stages.back().inputs[0].from = {"polish"};
  stages.insert(stages.end() - 1, polish);

  const fs::path run = World::get().path("polished");
  fs::copy(World::get().reference(), run, fs::copy_options::recursive);
  for (const char* name : {"scale", "model", "summary.json"}) fs::remove_all(run / name);
  const Recipe recipe = read_recipe(World::get().recipe(), {});
  convert(recipe, {run, /*resume=*/true, "a test"}, one_rank(), stages);
  EXPECT_EQ(result(run / "polish").at("tokens"), 77);
  EXPECT_EQ(result(run / "polish").at("loss").at("unit"), "nats a token");
  EXPECT_EQ(read_json(run / "summary.json").at("tokens_per_stage").at("polish"), 77);
  EXPECT_EQ(read_file(run / "model" / "model.safetensors"),
            read_file(World::get().reference() / "model" / "model.safetensors"));
  const json::array planned = plan(recipe, 100, {}, stages).at("stages").as_array();
  EXPECT_EQ(planned.back().at("stage"), "polish");
}

// In a run folder: a gate that fails stops the pipeline there; with the gate moved it goes on.
TEST(Stages, AFailedGateStopsTheRunUntilItIsMoved) {
  const fs::path run = World::get().path("gates");
  fs::copy(World::get().reference(), run, fs::copy_options::recursive);
  for (const char* stage : {"select", "scale"}) fs::remove_all(run / stage);
  Process strict = convert(run, true);
  strict.arguments.insert(strict.arguments.end(), {"--set", "gates.select_ratio=1e-9"});
  expect_error(run_halo(strict), 4, {"select", "gate is not passed", "must be at most 1e-09"});
  EXPECT_TRUE(fs::exists(run / "select" / "failed.json"));
  strict.arguments.back() = "gates.scale_needle=1.5";
  expect_error(run_halo(strict), 4, {"scale", "gate is not passed", "must be at least 1.5"});
  EXPECT_FALSE(fs::exists(run / "select" / "failed.json"));
  EXPECT_EQ(run_halo(convert(run, true)).code, 0);
  expect_same_record(run, World::get().reference());
}

}  // namespace
}  // namespace halo::system_test
