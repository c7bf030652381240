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

}  // namespace

TaskResult run_task(LanguageModel& model, const Task& task, AnswerCache* cache,
                    const std::function<void(const TaskItem&, const Outcome&)>& on_item,
                    const std::function<void(size_t done)>& on_batch) {
  // Texts asked together: some 16K tokens, so that batches are full and progress is seen.
  constexpr size_t kBytes = size_t{1} << 16;
  std::vector<std::string> ids;
  std::vector<Outcome> outcomes;
  const std::span<const TaskItem> items(task.items);
  for (size_t first = 0, last = 0; first < items.size(); first = last) {
    std::vector<const TaskItem*> open;  // that the cache has no answers of
    for (size_t bytes = 0; last < items.size() && (last == first || bytes < kBytes); ++last) {
      if (cache && cache->find(items[last])) continue;
      open.push_back(&items[last]);
      bytes += text_size(items[last]);
    }
    const std::vector<Answers> answers = ask(model, open);
    size_t next = 0;
    for (size_t i = first; i < last; ++i) {
      const bool is_open = next < open.size() && open[next] == &items[i];
      const Answers& given = is_open ? answers[next++] : *cache->find(items[i]);
      if (is_open && cache) cache->add(items[i], given);
      ids.push_back(items[i].id);
      outcomes.push_back(items[i].judge(given));
      on_item(items[i], outcomes.back());
    }
    if (cache) cache->flush();
    if (on_batch) on_batch(last);
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
                                   const Machine& machine) {
  const Kernels kernels = kernels_for(machine, options.engine);
  std::vector<std::string> names = expand_tasks(args.tasks);
  std::vector<TextTask> texts = text_tasks(names, args);
  std::vector<ModelResult> results;
  std::optional<AtomicFile> samples;
  if (!options.samples.empty()) samples.emplace(options.samples);
  const auto log = [&](const std::string& model, const std::string& task, const std::string& id,
                       const Outcome& outcome) {
    if (!samples) return;
    json::object line = {{"model", model}, {"task", task}, {"id", id}};
    for (const auto& [key, value] : outcome.sample) line[key] = value;
    samples->write(json::serialize(line) + "\n");
  };
  for (const std::string& directory : options.models) {
    const Model weights =
        load_model(directory, ParameterStore::Use::kFrozen, machine.compute, machine.device);
    LanguageModel model(weights, directory, kernels, options.engine.kv_type);
    ModelResult& result = results.emplace_back(ModelResult{directory, {}});
    // Answers depend on how they are computed, too.
    const std::string answers_of =
        options.cache.empty()
            ? ""
            : fmt::format("{}-{}-{}{}{}", model_hash(directory), c10::toString(machine.compute),
                          machine.device.str(),
                          options.engine.kv_type == KvType::kInt8 ? "-int8-keys" : "",
                          kernels == Kernels::kReference ? "-reference" : "");
    for (TextTask& text : texts) {
      result.tasks.push_back(text.run(
          weights.weights, model, kernels,
          [&](const std::string& id, const Outcome& o) { log(directory, text.name(), id, o); }));
    }
    // All of them first: a missing file is found before an hour is spent on the others.
    std::vector<Task> tasks;
    for (const std::string& name : names) tasks.push_back(make_task(name, args, model));
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
      result.tasks.push_back(
          run_task(model, task, cache ? &*cache : nullptr, on_item,
                   [&](size_t done) { progress.update(static_cast<int64_t>(done), "items"); }));
    }
  }
  if (samples) samples->commit();
  return results;
}

}  // namespace halo
