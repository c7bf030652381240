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

namespace {

// `count` documents at most in random order, `needed` among them.
std::vector<int64_t> choose_documents(const Documents& documents, int64_t needed, int64_t count,
                                      Draws& draws) {
  const auto all = static_cast<int64_t>(documents.texts.size());
  std::vector<int64_t> chosen = {needed};
  for (const int64_t d : draws.sample(all, std::min(count, all))) {
    if (static_cast<int64_t>(chosen.size()) == count) break;
    if (d != needed) chosen.push_back(d);
  }
  draws.shuffle(chosen);
  return chosen;
}

}  // namespace

Compose documents_with_answer(const Documents& documents, int64_t question, const Random& random,
                              std::optional<double> depth) {
  return [&documents, question, random, depth](int64_t hay) {
    Draws draws(random);
    const Question& asked = documents.questions[question];
    std::vector<int64_t> chosen = choose_documents(documents, asked.document, hay, draws);
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

Compose document_number(const Documents& documents, int64_t document, const Random& random) {
  return [&documents, document, random](int64_t hay) {
    constexpr int64_t kDigits = 7;
    Draws draws(random);
    const std::string number = draws.digits(kDigits);
    std::string context;
    for (const int64_t d : choose_documents(documents, document, hay, draws)) {
      std::string other = draws.digits(kDigits);
      while (other == number) other = draws.digits(kDigits);
      context +=
          fmt::format("Document {}:\n{}\n\n", d == document ? number : other, documents.texts[d]);
    }
    return Prompt{
        fmt::format("Below are some documents. I will give you a text at the end. Please find the "
                    "document index of the text. Only give me the index without any document "
                    "contents.\n\n{}Text: {}\nMost relevant document index:",
                    context, documents.texts[document]),
        {number}};
  };
}

}  // namespace halo::made
