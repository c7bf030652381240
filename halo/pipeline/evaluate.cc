#include "halo/pipeline/evaluate.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/progress.h"
#include "halo/eval/continuations.h"
#include "halo/eval/decode_time.h"
#include "halo/eval/needle.h"
#include "halo/formats/model_config.h"

namespace halo {
namespace {

class Evaluation {
 public:
  Evaluation(const EvalRecipe& recipe, const StageContext& context)
      : context_(context),
        recipe_(recipe),
        lengths_(report_lengths(recipe, context.training_length())),
        text_(batches(context.training_length(), recipe_.held_out_tokens, TextRows::kDocuments)),
        long_text_(batches(long_row(), recipe_.position_documents * long_row(), TextRows::kStream)),
        teacher_(
            teacher_states(context.teacher().weights, text_, /*with_best=*/true, context.ranks())) {
    NeedleArgs args;
    args.lengths = lengths_;
    args.haystacks = recipe_.haystacks;
    args.depths = even_depths(recipe_.questions);
    args.pool = NeedlePool::kReport;
    args.seed = Random(context.seed(), "eval.needles").bits(0);
    tasks_ = make_needles(context.needles(), context.held_out(), args);
    bytes_ = predicted_bytes(text_.text(), context.tokenizer());
    openings_ = choose_openings(text_.text(), 3);
  }

  // Text figures of a model; with the KL where it is not the teacher.
  json::object text(const DecoderWeights& weights, bool is_teacher) const {
    const TextScores scores =
        score_text(weights, text_, is_teacher ? nullptr : &teacher_, {}, context_.ranks());
    json::object out = text_to_json(scores, bytes_);
    out["loss_by_position"] = by_position(weights);
    return out;
  }

  json::object needles(const std::string& title, const DecoderWeights& weights) const {
    Engine engine = engine_of(weights);
    Progress progress("needles: " + title, static_cast<int64_t>(tasks_.size()));
    const auto on_haystack = [&](size_t done) {
      progress.update(static_cast<int64_t>(done),
                      fmt::format("{} tokens", tasks_[done - 1].length));
    };
    return needles_to_json(score_needles(engine, tasks_, on_haystack, context_.ranks()));
  }

  // What running a model costs: memory by its configuration, time as measured. By the first rank.
  void add_cost(const ModelConfig& config, const DecoderWeights& weights, json::object& out) const {
    if (!context_.ranks().is_first()) return;
    out["kv_bytes_per_token"] = config.kv_bytes_per_token();
    out["state_bytes"] = config.state_bytes();
    Engine engine = engine_of(weights);
    out["decode"] =
        decode_times_to_json(time_decoding(engine, long_text_.text().rows.front(), lengths_));
  }

  // [{"prompt", "text"}], to which add_continuations() adds what each model says.
  json::array openings() const {
    json::array out;
    for (const Opening& opening : openings_) {
      out.push_back({{"prompt", context_.tokenizer().decode(opening.prompt, true)},
                     {"text", context_.tokenizer().decode(opening.rest, true)}});
    }
    return out;
  }
  void add_continuations(const std::string& name, const DecoderWeights& weights,
                         json::array& openings) const {
    if (!context_.ranks().is_first()) return;
    constexpr int64_t kMemory = int64_t{1} << 28;  // of a few short texts
    Scheduler scheduler(std::make_shared<DecoderWeights>(weights),
                        {.kernels = kernels_for(context_.machine(), recipe_.engine),
                         .kv_type = recipe_.engine.kv_type,
                         .memory_bytes = kMemory});
    const auto said =
        continue_openings(scheduler, openings_,
                          read_end_tokens(context_.teacher_directory(), context_.teacher().config),
                          context_.tokenizer());
    for (size_t i = 0; i < said.size(); ++i) openings[i].as_object()[name] = said[i];
  }

 private:
  Engine engine_of(const DecoderWeights& weights) const {
    EngineOptions options;
    options.kernels = kernels_for(context_.machine(), recipe_.engine);
    options.kv_type = recipe_.engine.kv_type;
    return Engine(std::make_shared<DecoderWeights>(weights), options);
  }

  int64_t long_row() const { return std::ranges::max(lengths_); }

  TextBatches batches(int64_t row_length, int64_t max_tokens, TextRows rows) const {
    HeldOutArgs args;
    args.rows = rows;
    args.row_length = row_length;
    args.max_tokens = max_tokens;
    return context_.held_out_batches(args, context_.training_length());
  }

  json::value by_position(const DecoderWeights& weights) const {
    return text_to_json(score_text(weights, long_text_, nullptr, {}, context_.ranks()),
                        0)["by_position"];
  }

  const StageContext& context_;
  const EvalRecipe& recipe_;
  const std::vector<int64_t> lengths_;
  TextBatches text_, long_text_;
  TeacherStates teacher_;
  std::vector<NeedleTask> tasks_;
  std::vector<Opening> openings_;
  int64_t bytes_ = 0;
};

json::array mixer_names(const ModelConfig& config) {
  json::array names;
  for (MixerType type : config.mixer_types) {
    names.push_back(type == MixerType::kAttention ? "attn" : "lightning-attn");
  }
  return names;
}

}  // namespace

std::vector<int64_t> report_lengths(const EvalRecipe& recipe, int64_t training_length) {
  if (!recipe.lengths.empty()) return recipe.lengths;
  return {training_length, 2 * training_length, 4 * training_length, 8 * training_length};
}

json::object evaluate(const EvalRecipe& recipe, const StageContext& context,
                      const fs::path& student_directory) {
  at::NoGradGuard no_grad;
  const Evaluation evaluation(recipe, context);
  const DecoderWeights& teacher = context.teacher().weights;
  json::object teacher_figures = evaluation.text(teacher, true);
  teacher_figures["needle"] = evaluation.needles("teacher", teacher);
  evaluation.add_cost(context.teacher().config, teacher, teacher_figures);
  json::array continuations = evaluation.openings();
  evaluation.add_continuations("teacher", teacher, continuations);
  json::object out{{"training_length", context.training_length()}, {"teacher", teacher_figures}};
  if (student_directory.empty()) {
    out["continuations"] = continuations;
    return out;
  }

  const Model student = context.load(student_directory);
  json::object figures = evaluation.text(student.weights, false);
  figures["needle"] = evaluation.needles("student", student.weights);
  figures["needle_unscaled"] = evaluation.needles("student, no logit scale",
                                                  with_logit_scale(student.weights, LogitScale{}));
  evaluation.add_cost(student.config, student.weights, figures);
  evaluation.add_continuations("student", student.weights, continuations);
  figures["mixer_types"] = mixer_names(student.config);
  figures["attn_logits_scaling"] = model_config_to_json(student.config)["attn_logits_scaling"];
  out["student"] = figures;
  out["continuations"] = continuations;
  return out;
}

}  // namespace halo
