// A question whose answer is in one of many documents.
#pragma once

#include <filesystem>
#include <optional>

#include "halo/eval/tasks/made/prompt.h"

namespace halo::made {

struct Question {
  std::string text;
  std::vector<std::string> answers;
  int64_t document;  // index
};

struct Documents {
  std::vector<std::string> texts;  // distinct
  std::vector<Question> questions;
};

// From DIR/squad_v1.jsonl[.zst|.gz].
Documents documents_of_squad(const std::filesystem::path& directory);

// `hay` documents in random order, the question's own among them, at `depth` from 0 (the first) to
// 1 if that is given. `documents` outlives the result.
Compose documents_with_answer(const Documents& documents, int64_t question, const Random& random,
                              std::optional<double> depth);

// As RULER v2 asks at its basic level: `hay` documents by numbers of seven digits; which number has
// the document that stands again at the end?
Compose document_number(const Documents& documents, int64_t document, const Random& random);

}  // namespace halo::made
