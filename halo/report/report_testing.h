// A run folder as the stages write it, for tests of its page.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>

#include "halo/base/files.h"
#include "halo/base/json.h"
#include "halo/report/report.h"
#include "tests/testing.h"

namespace halo::test {

namespace fs = std::filesystem;

inline json::object needle(double near, double far) {
  json::object out;
  for (const auto& [length, accuracy] : {std::pair{"512", near}, {"4096", far}}) {
    json::array depths;
    for (const double depth : {0.25, 0.75}) {
      depths.push_back({{"depth", depth},
                        {"accuracy", accuracy},
                        {"stderr", 0.02},
                        {"n", 20},
                        {"clusters", 10}});
    }
    out[length] = {{"accuracy", accuracy}, {"stderr", 0.0123}, {"n", 40},
                   {"clusters", 10},       {"logprob", -0.1},  {"logprob_stderr", 0.01},
                   {"by_depth", depths}};
  }
  return out;
}

inline json::array positions(double loss) {
  json::array out;
  for (const auto& [from, to] : {std::pair{0, 256}, {256, 512}, {512, 4096}}) {
    out.push_back({{"from", from},
                   {"to", to},
                   {"loss", loss},
                   {"stderr", 0.01},
                   {"n", 1000},
                   {"clusters", 8},
                   {"kl", 0.2},
                   {"kl_stderr", 0.02}});
  }
  return out;
}

inline json::object model_figures(double loss) {
  return {
      {"loss", loss},
      {"stderr", 0.0111},
      {"n", 201'344},
      {"clusters", 230},
      {"bits_per_byte", 1.25},
      {"kv_bytes_per_token", 4096},
      {"state_bytes", 0},
      {"decode",
       {{"512", {{"seconds", 0.00125}, {"n", 15}}}, {"4096", {{"seconds", 0.0035}, {"n", 15}}}}},
      {"by_position", positions(loss)},
      {"needle", needle(0.9, 0.375)},
      {"loss_by_position", positions(loss)}};
}

inline json::object gate(const char* figure, double value, bool passed) {
  return {{"figure", figure},
          {"value", value},
          {"must_be", "at most"},
          {"limit", 0.5},
          {"passed", passed}};
}

class ReportTest : public ::testing::Test {
 protected:
  void write_text(const std::string& name, const std::string& text) const {
    fs::create_directories((run_ / name).parent_path());
    write_file(run_ / name, text);
  }
  void write(const std::string& name, const json::value& value) const {
    write_text(name, format_json(value));
  }

  std::string page() const {
    write_report(run_);
    return read_file(run_ / "report.html");
  }

  std::string error() const {
    return error_of([&] { write_report(run_); });
  }

  void write_summary() const {
    json::object student = model_figures(2.1018);
    student["kl"] = 0.1784;
    student["kl_stderr"] = 0.0031;
    student["needle_unscaled"] = needle(0.85, 0.125);
    student["mixer_types"] = {"lightning-attn", "attn", "lightning-attn", "lightning-attn"};
    student["attn_logits_scaling"] = "hype 500";
    student["kv_bytes_per_token"] = 1024;
    student["state_bytes"] = 98'304;
    const json::array continuations = {{{"prompt", "It was <i>late</i>"},
                                        {"text", "and dark."},
                                        {"teacher", "and they went."},
                                        {"student", "</p><script>"}}};
    write("summary.json", json::object{{"training_length", 512},
                                       {"teacher", model_figures(1.9732)},
                                       {"student", student},
                                       {"tokens_per_stage", {{"align", 4096}, {"distill", 8192}}},
                                       {"seconds", 683.2},
                                       {"matrix_gflops", 141.3},
                                       {"continuations", continuations}});
  }

  void write_training(const std::string& stage, bool layers) const {
    std::string lines;
    for (int step = 1; step <= 40; ++step) {
      json::object line{{"step", step},       {"tokens", step * 100},
                        {"loss", 2.0 / step}, {"grad_norm", 1.0 / step},
                        {"lr", 1e-3},         {"skipped", step == 20}};
      if (step == 20) line["loss"] = line["grad_norm"] = nullptr;
      for (int layer = 0; layers && layer < 4; ++layer) {
        line[fmt::format("layer_{}", layer)] = 0.1 * (layer + 1) / step;
      }
      line["tokens_per_second"] = 2222.0;
      if (step > 1) line["data_wait"] = step == 2 ? 0.39 : 0;
      line["seconds"] = step * 0.5;
      lines += json::serialize(line) + "\n";
    }
    // As a killed run leaves it.
    write_text(stage + "/metrics.jsonl", lines + R"({"step":41,"lo)");
    write_text(stage + "/events.jsonl",
               "{\"event\":\"resume\",\"step\":9}\n"
               "{\"event\":\"warning\",\"step\":9,\"text\":\"a <b>warning</b>\"}\n");
  }

  void write_searches() const {
    const auto candidate = [](json::array layers, double needle, double kl) {
      return json::object{{"layers", layers},
                          {"needle_accuracy", 0.5},
                          {"needle_logprob", needle},
                          {"needle_logprob_stderr", 0.05},
                          {"kl", kl},
                          {"kl_stderr", 0.02},
                          {"loss", 2.5}};
    };
    write(
        "select/selection.json",
        json::object{{"rule", "joint"},
                     {"layers", {1}},
                     {"scores", json::array{}},
                     {"frequency", {0.0, 0.8125, 0.1875, 0.0}},
                     {"chosen", candidate({1}, -0.321, 0.4567)},
                     {"nothing_kept", candidate({}, -2.5, 1.5)},
                     {"candidates", {candidate({0}, -1.25, 0.9), candidate({1}, -0.321, 0.4567)}}});
    json::array candidates;
    for (const char* name : {"none", "constant 1.5", "500", "100"}) {
      candidates.push_back({{"name", name},
                            {"needle", needle(0.9, 0.8)},
                            {"accuracy", 0.8771},
                            {"accuracy_stderr", 0.02},
                            {"loss_beyond_training_length", 2.3456},
                            {"loss_stderr", nullptr},
                            {"training_length", 512}});
    }
    write("scale/scale.json",
          json::object{
              {"rule", "most needles, then text"}, {"chosen", "500"}, {"candidates", candidates}});
  }

  void write_all() const {
    write_summary();
    write("env.json", json::object{{"command", "halo convert <script>alert('x')</script> --run r"},
                                   {"device", "a CPU & more"},
                                   {"tokenizer_hash", "00112233445566778899aabbccddeeff"}});
    write_text("config.resolved.toml", "teacher = \"</pre><script>\"\n");
    write("align/result.json", json::object{{"gate", gate("explained variance", 0.96, true)},
                                            {"explained_variance", {0.99, 0.9123, nullptr, 0.97}},
                                            {"worst_layer", 1},
                                            {"tokens", 4096},
                                            {"seconds", 141.2}});
    write("distill/failed.json", json::object{{"gate", gate("held-out KL", 0.7531, false)}});
    write_training("align", true);
    write_training("distill", false);
    write_searches();
  }

  const Folder folder_;
  const fs::path run_ = folder_.path();
};

}  // namespace halo::test
