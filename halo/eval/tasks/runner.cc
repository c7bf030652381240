#include "halo/eval/tasks/runner.h"

#include <algorithm>
#include <optional>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/engine/scheduler.h"
#include "halo/eval/tasks/text_task.h"

namespace halo {
namespace {

size_t text_size(const TaskItem& item) {
  size_t size = 0;
  for (const ScoreRequest& r : item.scored) size += r.prompt.size() + r.continuation.size();
  for (const GenerateRequest& r : item.generated) size += r.prompt.size();
  return size;
}

// Of items asked together.
std::vector<Answers> ask(LanguageModel& model, const std::vector<const TaskItem*>& items) {
  std::vector<ScoreRequest> scored;
  std::vector<GenerateRequest> generated;
  for (const TaskItem* item : items) {
    scored.insert(scored.end(), item->scored.begin(), item->scored.end());
    generated.insert(generated.end(), item->generated.begin(), item->generated.end());
  }
  const std::vector<Score> scores = model.score(scored);
  const std::vector<std::string> texts = model.generate_until(generated);
  std::vector<Answers> answers;
  auto score = scores.begin();
  auto text = texts.begin();
  for (const TaskItem* item : items) {
    const auto num_scores = static_cast<int64_t>(item->scored.size());
    const auto num_texts = static_cast<int64_t>(item->generated.size());
    answers.push_back({{score, score + num_scores}, {text, text + num_texts}});
    score += num_scores;
    text += num_texts;
  }
  return answers;
}

// Of each item, what the first rank's cache has of it.
std::vector<std::optional<Answers>> cached_answers(const Task& task, const AnswerCache* cache,
                                                   Communicator& ranks) {
  const auto found = [&](int64_t) {
    Packer packed;
    for (const TaskItem& item : task.items) {
      const Answers* answers = cache ? cache->find(item) : nullptr;
      packed.add(int64_t{answers != nullptr});
      if (answers) pack(*answers, packed);
    }
    return packed.bytes();
  };
  const std::vector<std::string> said = deal(ranks, 1, found);
  Unpacker packed(said[0]);
  std::vector<std::optional<Answers>> answers(task.items.size());
  for (std::optional<Answers>& own : answers) {
    if (packed.integer() != 0) own = unpack_answers(packed);
  }
  return answers;
}

// Items asked together, by their numbers, and the number of items that are done with them.
struct Piece {
  std::vector<size_t> open;  // that are to be asked
  size_t done = 0;
};

// Some 16K tokens each, so that batches are full and progress is seen.
std::vector<Piece> pieces_of(const Task& task, const std::vector<std::optional<Answers>>& known) {
  constexpr size_t kBytes = size_t{1} << 16;
  std::vector<Piece> pieces;
  size_t bytes = kBytes;
  for (size_t i = 0; i < task.items.size(); ++i) {
    if (!known[i]) {
      if (bytes >= kBytes) {
        pieces.emplace_back();
        bytes = 0;
      }
      pieces.back().open.push_back(i);
      bytes += text_size(task.items[i]);
    }
    if (!pieces.empty()) pieces.back().done = i + 1;
  }
  return pieces;
}

}  // namespace

TaskResult run_task(LanguageModel& model, const Task& task, AnswerCache* cache,
                    const std::function<void(const TaskItem&, const Outcome&)>& on_item,
                    const std::function<void(size_t done)>& on_batch, Communicator& ranks) {
  std::vector<std::optional<Answers>> answers = cached_answers(task, cache, ranks);
  const std::vector<Piece> pieces = pieces_of(task, answers);
  const auto keep = [&](const Piece& piece, const std::vector<Answers>& given) {
    if (!cache) return;
    for (size_t i = 0; i < given.size(); ++i) cache->add(task.items[piece.open[i]], given[i]);
    cache->flush();
  };
  const auto ask_piece = [&](int64_t number) {
    const Piece& piece = pieces[number];
    std::vector<const TaskItem*> items;
    for (const size_t i : piece.open) items.push_back(&task.items[i]);
    const std::vector<Answers> given = ask(model, items);
    keep(piece, given);
    if (on_batch) on_batch(piece.done);
    Packer packed;
    for (const Answers& own : given) pack(own, packed);
    return packed.bytes();
  };
  if (pieces.empty() && on_batch) on_batch(task.items.size());
  const std::vector<std::string> said = deal(ranks, std::ssize(pieces), ask_piece);
  for (int64_t number = 0; number < std::ssize(pieces); ++number) {
    Unpacker packed(said[number]);
    std::vector<Answers> given;
    for (const size_t i : pieces[number].open) {
      given.push_back(unpack_answers(packed));
      answers[i] = given.back();
    }
    if (!does_piece(ranks, number)) keep(pieces[number], given);
  }
  std::vector<std::string> ids;
  std::vector<Outcome> outcomes;
  for (size_t i = 0; i < task.items.size(); ++i) {
    ids.push_back(task.items[i].id);
    outcomes.push_back(task.items[i].judge(*answers[i]));
    on_item(task.items[i], outcomes.back());
  }
  return summarise(task.name, ids, outcomes);
}

namespace {

// Those of the names that are plain text; the others are left.
std::vector<TextTask> text_tasks(std::vector<std::string>& names, const TaskArgs& args) {
  std::vector<TextTask> texts;
  std::erase_if(names, [&](const std::string& name) {
    const auto& known = TextTask::names();
    if (std::ranges::find(known, name) == known.end()) return false;
    texts.emplace_back(name, args.data, std::ranges::max(args.lengths), args.limit);
    return true;
  });
  return texts;
}

}  // namespace

std::vector<ModelResult> run_tasks(const TaskArgs& args, const RunTasksOptions& options,
                                   const Machine& machine, Communicator& ranks) {
  const Kernels kernels = kernels_for(machine, options.engine);
  std::vector<std::string> names = expand_tasks(args.tasks);
  std::vector<TextTask> texts = together(ranks, [&] { return text_tasks(names, args); });
  std::vector<ModelResult> results;
  std::optional<AtomicFile> samples;
  if (!options.samples.empty() && ranks.is_first()) samples.emplace(options.samples);
  const auto log = [&](const std::string& model, const std::string& task, const std::string& id,
                       const Outcome& outcome) {
    if (!samples) return;
    json::object line = {{"model", model}, {"task", task}, {"id", id}};
    for (const auto& [key, value] : outcome.sample) line[key] = value;
    samples->write(json::serialize(line) + "\n");
  };
  for (const std::string& directory : options.models) {
    const Model weights = together(ranks, [&] {
      return load_model(directory, ParameterStore::Use::kFrozen, machine.compute, machine.device);
    });
    LanguageModel model(weights, directory, kernels, options.engine.kv_type);
    ModelResult& result = results.emplace_back(ModelResult{directory, {}});
    // Answers depend on how they are computed, too.
    const std::string answers_of =
        options.cache.empty() || !ranks.is_first()
            ? ""
            : fmt::format("{}-{}-{}{}{}", model_hash(directory), c10::toString(machine.compute),
                          machine.device.str(),
                          options.engine.kv_type == KvType::kInt8 ? "-int8-keys" : "",
                          kernels == Kernels::kReference ? "-reference" : "");
    for (TextTask& text : texts) {
      result.tasks.push_back(text.run(
          weights.weights, model, kernels,
          [&](const std::string& id, const Outcome& o) { log(directory, text.name(), id, o); },
          ranks));
    }
    // All of them first: a missing file is found before an hour is spent on the others.
    const std::vector<Task> tasks = together(ranks, [&] {
      std::vector<Task> all;
      for (const std::string& name : names) all.push_back(make_task(name, args, model));
      return all;
    });
    for (const Task& task : tasks) {
      const std::string& name = task.name;
      std::optional<AnswerCache> cache;
      if (!answers_of.empty()) cache.emplace(options.cache / answers_of / (name + ".jsonl"));
      Progress progress(fmt::format("{}: {}", directory, name),
                        static_cast<int64_t>(task.items.size()));
      progress.update(0, "items");
      const auto on_item = [&](const TaskItem& item, const Outcome& outcome) {
        log(directory, name, item.id, outcome);
      };
      result.tasks.push_back(run_task(
          model, task, cache ? &*cache : nullptr, on_item,
          [&](size_t done) { progress.update(static_cast<int64_t>(done), "items"); }, ranks));
    }
  }
  if (samples) samples->commit();
  return results;
}

}  // namespace halo
