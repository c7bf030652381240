#include "halo/eval/tasks/made/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "halo/eval/tasks/item_file.h"

namespace halo::made {

Documents documents_of_squad(const std::filesystem::path& directory) {
  Documents documents;
  std::map<std::string, int64_t> known;
  read_items(directory, "squad_v1", 0, [&](const ItemLine& line) {
    const std::string text = line.text("context");
    const auto [place, is_new] = known.emplace(text, static_cast<int64_t>(documents.texts.size()));
    if (is_new) documents.texts.push_back(text);
    documents.questions.push_back({line.text("question"), line.texts("answers"), place->second});
  });
  return documents;
}

Compose documents_with_answer(const Documents& documents, int64_t question, const Random& random,
                              std::optional<double> depth) {
  return [&documents, question, random, depth](int64_t hay) {
    Draws draws(random);
    const Question& asked = documents.questions[question];
    std::vector<int64_t> chosen = {asked.document};
    for (const int64_t d : draws.sample(static_cast<int64_t>(documents.texts.size()),
                                        std::min<int64_t>(hay, documents.texts.size()))) {
      if (static_cast<int64_t>(chosen.size()) == hay) break;
      if (d != asked.document) chosen.push_back(d);
    }
    draws.shuffle(chosen);
    if (depth) {
      std::erase(chosen, asked.document);
      const double place = *depth * static_cast<double>(chosen.size());
      chosen.insert(chosen.begin() + std::lround(place), asked.document);
    }
    std::string context;
    for (size_t i = 0; i < chosen.size(); ++i) {
      context += fmt::format("Document {}:\n{}\n\n", i + 1, documents.texts[chosen[i]]);
    }
    constexpr const char* kTask =
        "Answer the question based on the given documents. Only give me the answer and do not "
        "output any other words.";
    return Prompt{fmt::format("{}\n\nThe following are given documents.\n\n{}{}\n\nQuestion: {} "
                              "Answer:",
                              kTask, context, kTask, asked.text),
                  asked.answers, /*any_answer=*/true};
  };
}

}  // namespace halo::made
