// Layers chosen by tasks, the logit scale of a model alone, and matrices of runs.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halo/base/files.h"
#include "halo/base/json.h"
#include "halo/train/checkpoint.h"
#include "tests/system/world.h"

namespace halo::system_test {
namespace {

using testing::HasSubstr;

std::vector<json::object> read_lines(const fs::path& path) {
  std::vector<json::object> lines;
  const std::string text = read_file(path);
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    lines.push_back(parse_json(text.substr(begin, end - begin), path.string()).as_object());
  }
  return lines;
}

// Two tasks that the world's teacher does: what it says is right.
fs::path tasks_of_the_teacher() {
  const fs::path data = World::get().folder("tasks");
  const auto write = [&](const std::vector<json::object>& said) {
    std::string choices, questions;
    for (int i = 0; i < 12; ++i) {
      json::object choice{{"id", std::to_string(i)},
                          {"context", fmt::format("the {} cat of {}", i, 7 * i % 5)},
                          {"choices", {"dog", "two houses", "red"}},
                          {"label", 0}};
      json::object question{{"id", std::to_string(i)},
                            {"context", fmt::format("cat {} is {}", i, i * i)},
                            {"question", "what"},
                            {"answers", {"x"}}};
      for (const json::object& line : said) {
        if (line.at("id").as_string() != choice.at("id").as_string()) continue;
        if (line.at("task").as_string() == "copa") {
          choice["label"] = line.at("choice_norm");
        } else if (!line.at("answer").as_string().empty()) {
          question["answers"] = {line.at("answer")};
        }
      }
      choices += json::serialize(choice) + "\n";
      questions += json::serialize(question) + "\n";
    }
    write_file(data / "copa.jsonl", choices);
    write_file(data / "squad_v1.jsonl", questions);
  };
  write({});
  output_of({"eval", World::get().teacher().string(), "--tasks", "copa,squad_v1", "--data",
             data.string(), "--log-samples", (data / "said.jsonl").string()});
  write(read_lines(data / "said.jsonl"));
  return data;
}

TEST(Sweeps, LayersAreChosenByTasks) {
  const fs::path data = tasks_of_the_teacher(), out = World::get().folder("by-tasks") / "out";
  const fs::path run = World::get().reference();
  Words words = {
      "select", "--recipe",  World::get().recipe().string(), "--student", (run / "align").string(),
      "--out",  out.string()};
  for (const fs::directory_entry& step : fs::directory_iterator(run / "align")) {
    if (step.path().filename().string().starts_with("step-")) words[4] = step.path().string();
  }
  for (const std::string& set : {std::string("select.rule=halo"), std::string("select.keep=2"),
                                 std::string("select.recall=[\"squad_v1\"]"),
                                 std::string("select.commonsense=[\"copa\"]")}) {
    words.insert(words.end(), {"--set", set});
  }
  expect_error(run_halo(words), 1, {"select.data", "folder"});
  words.insert(words.end(), {"--set", fmt::format("select.data=\"{}\"", data.string())});
  const Outcome outcome = run_halo(words);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json::object selection = read_json(out / "selection.json").as_object();
  const json::array& tasks = selection.at("sweep").at("tasks").as_array();
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_EQ(tasks[0].at("name").as_string(), "squad_v1");
  EXPECT_EQ(tasks[1].at("teacher").as_double(), 1);
  EXPECT_NEAR(tasks[1].at("chance").as_double(), 1.0 / 3, 1e-12);
  EXPECT_EQ(tasks[1].at("swapped").as_array().size(), 4u);
  double kept = 0;
  for (const json::value& share : selection.at("frequency").as_array()) kept += share.as_double();
  EXPECT_NEAR(kept, 2, 1e-9);

  // Two ranks deal the items, to the same bits.
  const std::string table = read_file(out / "layer-sweep.csv");
  fs::remove_all(out);
  Words on_two = words;
  on_two.insert(on_two.end(), {"--ranks", "2"});
  const Outcome several = run_halo(on_two);
  ASSERT_EQ(several.code, 0) << several.err;
  EXPECT_EQ(read_file(out / "layer-sweep.csv"), table);
  EXPECT_EQ(read_json(out / "selection.json").at("frequency"), selection.at("frequency"));

  // The table gives the same layers without a model.
  const json::object again =
      parse_json(output_of({"select", "--scores", (out / "layer-sweep.csv").string(), "--keep", "2",
                            "--items", "12", "--json"}),
                 "select")
          .as_object();
  EXPECT_EQ(again.at("layers"), selection.at("layers"));
  EXPECT_EQ(again.at("probability").as_array().size(), 4u);

  // A task that the teacher only guesses is refused by name.
  std::string guessed;
  for (int i = 0; i < 12; ++i) {
    guessed +=
        fmt::format(R"({{"context": "cat", "question": "what", "answers": ["no {} way"]}})", i) +
        "\n";
  }
  write_file(data / "squad_v1.jsonl", guessed);
  fs::remove_all(out);
  for (const Words& on : {words, on_two}) {
    expect_error(run_halo(on), 1, {"of squad_v1", "by guessing 0.000", "select.recall"});
  }
  fs::remove(data / "copa.jsonl");
  expect_error(
      run_halo({"plan", World::get().recipe().string(), "--set", "select.rule=halo", "--set",
                "select.recall=[\"squad_v1\"]", "--set", "select.commonsense=[\"copa\"]", "--set",
                fmt::format("select.data=\"{}\"", data.string())}),
      1, {"no copa.jsonl"});
}

TEST(Sweeps, TheScaleOfAModelAloneIsSearched) {
  const fs::path folder = World::get().folder("scale-alone");
  const fs::path model = World::get().reference() / "model";
  const json::value trained =
      read_json(World::get().reference() / "summary.json").at("training_length");
  const Words words = {"scale",
                       "--student",
                       model.string(),
                       "--out",
                       (folder / "out").string(),
                       "--set",
                       fmt::format("eval.held_out=\"{}\"", World::get().held_out().string()),
                       "--set",
                       "scale.candidates=[100, 1000]",
                       "--set",
                       "scale.lengths=[1024]",
                       "--set",
                       "scale.haystacks=1",
                       "--set",
                       "scale.questions=2",
                       "--set",
                       "scale.documents=1",
                       "--set",
                       "gates.scale_needle=0"};
  const Outcome outcome = run_halo(words);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json::object scale = read_json(folder / "out" / "scale.json").as_object();
  // No scale, a constant one, two values, and what lies between the better one and the other.
  ASSERT_EQ(scale.at("candidates").as_array().size(), 5u);
  EXPECT_EQ(scale.at("candidates").at(0).at("training_length"), trained);
  EXPECT_EQ(scale.at("candidates").at(4).at("name").as_string(), "316");
  EXPECT_TRUE(fs::exists(folder / "out" / "step-0" / "model.safetensors"));
  expect_error(run_halo({"scale", "--out", (folder / "other").string()}), 2,
               {"--student is missing"});

  // A HypeNet of somebody else says nothing of how it was trained.
  const fs::path published = folder / "published";
  fs::copy(model, published);
  json::object config = read_json(published / "config.json").as_object();
  EXPECT_EQ(config.at("training_length"), trained);
  config.erase("training_length");
  write_json(published / "config.json", config);
  Words other = words;
  other[2] = published.string();
  other[4] = (folder / "published-out").string();
  expect_error(run_halo(other), 1, {"published", "scale.training_length=TOKENS"});
  other.insert(other.end(), {"--set", "scale.training_length=128"});
  ASSERT_EQ(run_halo(other).code, 0);
  EXPECT_EQ(read_json(folder / "published-out" / "scale.json")
                .at("candidates")
                .at(0)
                .at("training_length")
                .as_int64(),
            128);
}

TEST(Sweeps, ARateThatDivergesIsStoppedAndReported) {
  const fs::path folder = World::get().folder("diverging"), out = folder / "runs";
  write_file(folder / "sweep.toml",
             fmt::format("recipe = \"{}\"\n[sweep]\n"
                         "set = [\"finetune.tokens=0\", \"on_policy.tokens=0\", "
                         "\"align_attention.tokens=0\", \"distill.tokens=102_400\"]\n"
                         "axes = [\"distill.learning_rate=[1e30, 1e-3]\"]\n",
                         World::get().recipe().string()));
  const std::string table =
      output_of({"sweep", (folder / "sweep.toml").string(), "--out", out.string()});
  EXPECT_THAT(table, HasSubstr("| distill.learning_rate=1e30 | 1 | 1 |"));
  EXPECT_THAT(table, HasSubstr("| distill.learning_rate=1e-3 | 1 | 0 |"));
  EXPECT_THAT(table, HasSubstr("\n- distill.learning_rate=1e30: failed distill: "));
  EXPECT_THAT(table, HasSubstr("with a lower learning_rate than 1e+30"));
  // It names a checkpoint of before, which is there and can be gone on with.
  const fs::path stage = out / "distill.learning_rate=1e30" / "distill";
  const Checkpoints checkpoints(stage, 2);
  ASSERT_FALSE(checkpoints.steps().empty());
  const int64_t step = checkpoints.steps().front();
  EXPECT_THAT(table, HasSubstr(checkpoints.path(step).string() + " with"));
  checkpoints.verify(step, /*hashes=*/true);
  EXPECT_FALSE(fs::exists(stage / "result.json"));
}

TEST(Sweeps, RunsShareStagesResumeAndEndInATable) {
  const fs::path folder = World::get().folder("sweep"), out = folder / "runs";
  write_file(folder / "sweep.toml",
             fmt::format("recipe = \"{}\"\n[sweep]\nset = [\"distill.learning_rate=1e-5\"]\n"
                         "axes = [\"distill.learning_rate=[1e-4, 1e-3]\"]\n",
                         World::get().recipe().string()));
  const Words words = {"sweep",     (folder / "sweep.toml").string(),
                       "--out",     out.string(),
                       "--set",     "finetune.tokens=0",
                       "--threads", "1"};
  const std::string table = output_of(words);
  EXPECT_THAT(table, HasSubstr("| distill.learning_rate=1e-4 | 1 | 0 |"));
  EXPECT_THAT(table, HasSubstr("largest gradient"));
  const fs::path a = out / "distill.learning_rate=1e-4", b = out / "distill.learning_rate=1e-3";
  // Stages before stage 2 were made once: linked.
  EXPECT_EQ(
      fs::hard_link_count(b / "transfer" / "result.json") > 1 ||
          read_file(b / "align" / "metrics.jsonl") == read_file(a / "align" / "metrics.jsonl"),
      true);
  EXPECT_EQ(read_file(a / "select" / "selection.json"), read_file(b / "select" / "selection.json"));
  EXPECT_NE(read_file(a / "distill" / "metrics.jsonl"), read_file(b / "distill" / "metrics.jsonl"));
  const json::object result = read_json(out / "sweep.json").as_object();
  EXPECT_EQ(result.at("cells").at(1).at("state").as_string(), "done");
  EXPECT_EQ(result.at("cells").at(1).at("set"),
            json::value(json::array{"distill.learning_rate=1e-5", "finetune.tokens=0",
                                    "run.threads=1", "distill.learning_rate=1e-3"}));
  EXPECT_EQ(read_file(out / "sweep.md"), table);
  // Again: nothing is left to do, and the table is the same.
  const auto time = fs::last_write_time(a / "STATUS");
  EXPECT_EQ(output_of(words), table);
  EXPECT_EQ(fs::last_write_time(a / "STATUS"), time);
  // Its figures are not those of other settings.
  Words others = words;
  others.insert(others.end(), {"--set", "align.learning_rate=2e-3"});
  expect_error(run_halo(others), 1, {a.string(), "align.learning_rate = ", "another --out"});
  others.back() = "gates.distill_kl=19";
  expect_error(run_halo(others), 1, {a.string(), "gates.distill_kl = ", "another --out"});
  // What a stage would refuse is said before any cell runs.
  write_file(folder / "sweep.toml", fmt::format("recipe = \"{}\"\n[sweep]\ncases = [\"as-it-is:\", "
                                                "\"mine: select.layers=[0, 99]\"]\n",
                                                World::get().recipe().string()));
  expect_error(run_halo(words), 1, {"sweep: mine: ", "select.layers"});
  EXPECT_FALSE(fs::exists(out / "as-it-is"));
  write_file(folder / "sweep.toml",
             "recipe = \"nowhere.toml\"\n[sweep]\naxes = [\"run.seed=[1]\"]\n");
  expect_error(run_halo(words), 1, {"nowhere.toml"});
}

}  // namespace
}  // namespace halo::system_test
