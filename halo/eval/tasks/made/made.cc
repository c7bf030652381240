#include "halo/eval/tasks/made/made.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "halo/base/check.h"
#include "halo/eval/tasks/made/documents.h"
#include "halo/eval/tasks/made/hay.h"
#include "halo/eval/tasks/made/latent.h"
#include "halo/eval/tasks/made/needles.h"
#include "halo/eval/tasks/made/notes.h"
#include "halo/eval/tasks/made/variables.h"
#include "halo/eval/tasks/made/words.h"
#include "halo/eval/tasks/text.h"

namespace halo::made {
namespace {

// What prompts are made from, read when it is first asked for.
class Sources {
 public:
  explicit Sources(std::filesystem::path data) : data_(std::move(data)) {}

  const std::vector<std::string>& essays() {
    if (!essays_) essays_ = essay_words(data_);
    return *essays_;
  }
  const std::vector<std::string>& vocabulary() {
    if (!vocabulary_) vocabulary_ = plain_words(essays());
    return *vocabulary_;
  }
  const Documents& documents() {
    if (!documents_) documents_ = documents_of_squad(data_);
    return *documents_;
  }

 private:
  std::filesystem::path data_;
  std::optional<std::vector<std::string>> essays_, vocabulary_;
  std::optional<Documents> documents_;
};

struct Place {
  int64_t length, index;
  Random random;
};

// How one item is made, and with how much hay at least and at most.
struct Recipe {
  Compose compose;
  int64_t least = 1, most = 0;
  std::optional<double> depth = {};  // the place that is swept
};

struct Kind {
  std::string name;
  int64_t answer_tokens;  // room left for the answer
  std::function<Recipe(Sources&, const Place&)> recipe;
};

Kind needle_kind(std::string name, NeedleKind kind) {
  return {
      std::move(name), 128, [kind](Sources& sources, const Place& place) {
        static const std::vector<std::string> none;
        const auto& essays = kind.hay == Hay::kEssays ? sources.essays() : none;
        return Recipe{needles(kind, essays, place.random), kind.keys * kind.values, place.length};
      }};
}

// Items in turn have their needle, or document, at the beginning, the end and between.
double swept_depth(const Place& place) {
  constexpr int64_t kDepths = 5;
  return static_cast<double>(place.index % kDepths) / (kDepths - 1);
}

Recipe question_recipe(Sources& sources, const Place& place, std::optional<double> depth) {
  const Documents& documents = sources.documents();
  const auto questions = static_cast<int64_t>(documents.questions.size());
  return {documents_with_answer(documents, place.index % questions, place.random, depth), 1,
          static_cast<int64_t>(documents.texts.size()), depth};
}

const std::vector<Kind>& ruler_kinds() {
  using enum Word;
  static const std::vector<Kind> kinds = {
      needle_kind("niah_single_1", {Hay::kNoise, kWords, kNumbers}),
      needle_kind("niah_single_2", {Hay::kEssays, kWords, kNumbers}),
      needle_kind("niah_single_3", {Hay::kEssays, kWords, kUuids}),
      needle_kind("niah_multikey_1", {Hay::kEssays, kWords, kNumbers, 4}),
      needle_kind("niah_multikey_2", {Hay::kNeedles, kWords, kNumbers}),
      needle_kind("niah_multikey_3", {Hay::kNeedles, kUuids, kUuids}),
      needle_kind("niah_multivalue", {Hay::kEssays, kWords, kNumbers, 1, 4}),
      needle_kind("niah_multiquery", {Hay::kEssays, kWords, kNumbers, 4, 1, 4}),
      {"ruler_vt", 30,
       [](Sources&, const Place& place) {
         return Recipe{variables(place.random), kLeastVariablesHay, place.length};
       }},
      {"ruler_cwe", 120,
       [](Sources& sources, const Place& place) {
         const auto& vocabulary = sources.vocabulary();
         return Recipe{common_words(vocabulary, place.length, place.random), 1,
                       static_cast<int64_t>(vocabulary.size()) - 10};
       }},
      {"ruler_fwe", 50,
       [](Sources&, const Place& place) {
         return Recipe{frequent_words(place.length, place.random), kLeastFrequentHay, place.length};
       }},
      {"ruler_qa_squad", 32,
       [](Sources& sources, const Place& place) {
         return question_recipe(sources, place, std::nullopt);
       }},
  };
  return kinds;
}

const std::vector<Kind>& ruler2_kinds() {
  using enum Word;
  static const std::vector<Kind> kinds = {
      needle_kind("ruler2_mk_niah_basic", {Hay::kNeedles, kWords, kNumbers, 1, 1, 1, 10}),
      needle_kind("ruler2_mv_niah_basic", {Hay::kNeedles, kWords, kNumbers, 1, 4, 1, 10}),
      {"ruler2_qa_basic", 32,
       [](Sources& sources, const Place& place) {
         const Documents& documents = sources.documents();
         const auto count = static_cast<int64_t>(documents.texts.size());
         return Recipe{document_number(documents, place.index % count, place.random), 1, count};
       }},
  };
  return kinds;
}

Kind notes_kind(int64_t alike) {
  return {fmt::format("notes_{}", alike), 64, [alike](Sources&, const Place& place) {
            return Recipe{notes(alike, place.random), 1, place.length};
          }};
}

const std::vector<Kind>& own_kinds() {
  static const std::vector<Kind> kinds = {
      {"passkey", 16,
       [](Sources&, const Place& place) {
         const double depth = swept_depth(place);
         return Recipe{passkey(depth, place.random), 1, place.length, depth};
       }},
      {"qa_squad_places", 32,
       [](Sources& sources, const Place& place) {
         return question_recipe(sources, place, swept_depth(place));
       }},
      {"niah_latent", 32,
       [](Sources& sources, const Place& place) {
         return Recipe{latent_needle(sources.essays(), place.random), 8, place.length};
       }},
      notes_kind(2),
      notes_kind(4),
      notes_kind(8),
  };
  return kinds;
}

std::vector<std::string> names_of(const std::vector<Kind>& kinds) {
  std::vector<std::string> names;
  for (const Kind& kind : kinds) names.push_back(kind.name);
  return names;
}

const Kind& find_kind(const std::string& name) {
  for (const auto* kinds : {&ruler_kinds(), &ruler2_kinds(), &own_kinds()}) {
    const auto found = std::ranges::find(*kinds, name, &Kind::name);
    if (found != kinds->end()) return *found;
  }
  throw_error("there is no task '{}' that is made to a length", name);
}

Outcome judge(const std::string& text, const Prompt& prompt, int64_t length,
              std::optional<double> depth) {
  const std::string small = lower(text);
  double found = 0;
  for (const std::string& answer : prompt.answers) {
    found += small.find(lower(answer)) != std::string::npos ? 1 : 0;
  }
  const double share =
      prompt.any_answer ? std::min(found, 1.0) : found / static_cast<double>(prompt.answers.size());
  Outcome outcome{{{std::to_string(length), share}},
                  {{"length", length},
                   {"tokens", prompt.tokens},
                   {"answer", stripped(text)},
                   {"answers", json::value_from(prompt.answers)}}};
  if (depth) outcome.figures.push_back({fmt::format("{}@{}", length, *depth), share});
  return outcome;
}

}  // namespace

std::vector<std::string> ruler_names() {
  return names_of(ruler_kinds());
}

std::vector<std::string> ruler2_names() {
  return names_of(ruler2_kinds());
}

std::vector<std::string> own_names() {
  return names_of(own_kinds());
}

std::vector<TaskItem> make_items(const std::string& name, const MadeArgs& args,
                                 const CountTokens& count_tokens) {
  const Kind& kind = find_kind(name);
  Sources sources(args.data);
  std::vector<TaskItem> items;
  for (const int64_t length : args.lengths) {
    for (int64_t index = 0; index < args.items; ++index) {
      const Random random(args.seed, fmt::format("{} {}", name, length), index);
      const Recipe recipe = kind.recipe(sources, {length, index, random});
      Prompt prompt = fill(fmt::format("{} at {} tokens", name, length), recipe.compose,
                           count_tokens, recipe.least, recipe.most, length - kind.answer_tokens);
      TaskItem& item = items.emplace_back();
      item.id = fmt::format("{}-{}", length, index);
      item.generated = {{std::exchange(prompt.text, {}), {}, kind.answer_tokens}};
      item.judge = [prompt, length, depth = recipe.depth](const Answers& given) {
        return judge(given.texts.front(), prompt, length, depth);
      };
    }
  }
  return items;
}

}  // namespace halo::made
