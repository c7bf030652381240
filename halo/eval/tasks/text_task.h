// Plain text as a task: how well a model predicts it, also by position, and how far it agrees with
// the first model that was asked.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halo/eval/held_out.h"
#include "halo/eval/language_model.h"
#include "halo/eval/tasks/results.h"

namespace halo {

class TextTask {
 public:
  static const std::vector<std::string>& names();

  // The text of DIR/FILE.txt, .txt.zst or .txt.gz; an Error where none is there.
  // Rows have `length` tokens each, in a row from the text's start; the first `limit` of them (0:
  // all). An Error where the text has not one.
  TextTask(const std::string& name, const std::filesystem::path& directory, int64_t length,
           int64_t limit);

  const std::string& name() const { return name_; }

  // A row is an item. Figures perplexity (of a token), bits_per_byte, loss (nats a token) and
  // "loss@FROM-TO" by position; of a model behind the first one that gives it the same tokens also
  // kl (from the first, nats a token), top1 (the share of tokens of which both say the same is
  // likeliest), and both by position. Ranks deal the rows among themselves, a batch at a time; all
  // get the result.
  TaskResult run(const DecoderWeights& weights, const LanguageModel& model, Kernels kernels,
                 const std::function<void(const std::string& id, const Outcome&)>& on_row,
                 Communicator& ranks = one_rank());

 private:
  std::string name_, text_;
  int64_t length_, limit_;
  std::optional<HeldOutText> first_rows_;
  TeacherStates first_;
};

}  // namespace halo
