// The figures of a report: teacher, student, and the student without its logit scale.
#pragma once

#include "halo/engine/engine_recipe.h"
#include "halo/stages/context.h"

namespace halo {

// Section `eval` of a recipe.
struct EvalRecipe {
  std::string held_out;
  std::vector<int64_t> lengths;
  int64_t held_out_tokens = 65'536;
  int64_t haystacks = 8;
  int64_t questions = 5;
  int64_t position_documents = 8;
  EngineRecipe engine;

  void settings(Settings& s) {
    s("held_out", held_out,
      {.help =
           "token shard of text no stage trains on; its first half is searched with, its second "
           "reported"});
    s("lengths", lengths,
      {.help = "needle lengths of the report; empty: 1, 2, 4 and 8 times the training length",
       .min = 1,
       .max = 16'777'216});
    s("held_out_tokens", held_out_tokens,
      {.help = "tokens of the loss and KL figures", .min = 1, .max = 1e12});
    s("haystacks", haystacks, {.help = "haystacks a length", .min = 1, .max = 100'000});
    s("questions", questions, {.help = "questions a haystack", .min = 1, .max = 100'000});
    s("position_documents", position_documents,
      {.help = "long documents behind the loss by position", .min = 1, .max = 1e6});
    engine.settings(s);
  }
};

// Needle lengths of the report.
std::vector<int64_t> report_lengths(const EvalRecipe& recipe, int64_t training_length);

// {"training_length", "teacher": {...}, "student": {...}, "continuations"} as summary.json has
// them: loss, also by position, bits_per_byte, needle, memory and time of decoding, and for the
// student kl, needle_unscaled, mixer_types, attn_logits_scaling. Without a student, the teacher
// alone.
json::object evaluate(const EvalRecipe& recipe, const StageContext& context,
                      const fs::path& student);

}  // namespace halo
