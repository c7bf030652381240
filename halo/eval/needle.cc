#include "halo/eval/needle.h"

#include <algorithm>
#include <map>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/eval/token_scores.h"

namespace halo {

namespace {

TokenRange pool_range(const TokenShard& text, NeedlePool pool) {
  if (pool == NeedlePool::kSearch) return text_range(text, TextPart::kSearch);
  if (pool == NeedlePool::kReport) return text_range(text, TextPart::kReport);
  return {0, text.header().num_tokens};
}

// Of the range's tokens those that a haystack may hold, counted until there are `enough`.
int64_t count_text(const NeedleWriter& writer, const TokenShard& text, const TokenRange& range,
                   int64_t enough) {
  constexpr int64_t kChunk = 1 << 16;
  std::vector<int64_t> chunk(kChunk);
  int64_t count = 0;
  for (int64_t begin = range.begin; begin < range.end && count < enough; begin += kChunk) {
    const int64_t n = std::min(kChunk, range.end - begin);
    text.copy_tokens(begin, begin + n, chunk.data());
    count += std::count_if(chunk.begin(), chunk.begin() + n,
                           [&](int64_t token) { return writer.is_text(token); });
  }
  return count;
}

// Tokens position .. position + n - 1 of the range said over and over.
void copy_round(const TokenShard& text, const TokenRange& range, int64_t position, int64_t n,
                int64_t* out) {
  const int64_t period = range.end - range.begin;
  while (n > 0) {
    const int64_t at = position % period, count = std::min(n, period - at);
    text.copy_tokens(range.begin + at, range.begin + at + count, out);
    position += count;
    out += count;
    n -= count;
  }
}

}  // namespace

void check_shortest_needles(const std::string& what, const NeedleWriter& writer,
                            const std::vector<int64_t>& lengths) {
  for (const int64_t length : lengths) {
    if (length >= writer.min_length()) continue;
    throw_error("{}: {} tokens are too few: a needle and its question take {}", what, length,
                writer.min_length());
  }
}

void check_needle_lengths(const std::string& what, const NeedleWriter& writer,
                          const TokenShard& text, const std::vector<int64_t>& lengths,
                          NeedlePool pool) {
  check_shortest_needles(what, writer, lengths);
  const TokenRange range = pool_range(text, pool);
  for (int64_t length : lengths) {
    const int64_t usable = count_text(writer, text, range, length);
    if (usable >= length) continue;
    throw_error(
        "{}: needles at length {} need as many tokens of held-out text in one part, but {} has {}; "
        "give more text or shorter lengths",
        what, length, text.path().string(), usable);
  }
}

std::vector<NeedleTask> make_needles(const NeedleWriter& writer, const TokenShard& text,
                                     const NeedleArgs& args) {
  check_needle_lengths("needles", writer, text, args.lengths, args.pool);
  const TokenRange range = pool_range(text, args.pool);
  std::vector<NeedleTask> tasks;
  for (int64_t length : args.lengths) {
    const int64_t places = range.end - range.begin - length + 1;
    const Random place(args.seed, "needle haystack", length);
    for (int64_t h = 0; h < args.haystacks; ++h) {
      const int64_t begin = place.below(h, places);
      const auto read = [&](int64_t position, int64_t n, int64_t* out) {
        copy_round(text, range, begin + position, n, out);
      };
      const std::vector<int64_t> window =
          writer.haystack_text(length, range.end - range.begin, read);
      const Random random(args.seed, fmt::format("needle {}", length), h);
      tasks.push_back(
          {length, writer.compose_haystack(window, length, args.depths, random, args.pool)});
    }
  }
  return tasks;
}

namespace {

// Feeds each haystack as far as its question number `round` shares it. Tasks without one are passed
// over.
void feed_prefixes(Engine& engine, const std::vector<NeedleTask>& tasks, size_t first,
                   const std::vector<OwnedSequence>& haystacks, size_t round) {
  std::vector<int64_t> ids;
  std::vector<std::vector<int64_t>> inputs;
  for (size_t t = 0; t < haystacks.size(); ++t) {
    const NeedleHaystack& haystack = tasks[first + t].haystack;
    if (round >= haystack.questions.size()) continue;
    const int64_t begin = engine.length(haystacks[t].id()), end = haystack.questions[round].prefix;
    if (begin == end) continue;
    ids.push_back(haystacks[t].id());
    inputs.emplace_back(haystack.ids.begin() + begin, haystack.ids.begin() + end);
  }
  if (!ids.empty()) engine.extend(ids, inputs, Engine::Rows::kLast);
}

// All questions on tasks first .. last-1.
void score_group(Engine& engine, const std::vector<NeedleTask>& tasks, size_t first, size_t last,
                 std::vector<NeedleItem>& items) {
  std::vector<OwnedSequence> haystacks, forks;
  size_t rounds = 0;
  for (size_t t = first; t < last; ++t) {
    haystacks.emplace_back(engine);
    rounds = std::max(rounds, tasks[t].haystack.questions.size());
  }
  std::vector<int64_t> ids;
  std::vector<std::vector<int64_t>> inputs;
  std::vector<int64_t> answers, rows;     // rows of the hidden states that predict them
  std::vector<size_t> num_answer_tokens;  // of each question
  int64_t fed = 0;
  for (size_t round = 0; round < rounds; ++round) {
    feed_prefixes(engine, tasks, first, haystacks, round);
    for (size_t t = first; t < last; ++t) {
      if (round >= tasks[t].haystack.questions.size()) continue;
      const NeedleQuestion& question = tasks[t].haystack.questions[round];
      forks.push_back(haystacks[t - first].fork());
      ids.push_back(forks.back().id());
      inputs.push_back(question.ids);
      inputs.back().insert(inputs.back().end(), question.answer.begin(), question.answer.end() - 1);
      fed += static_cast<int64_t>(inputs.back().size());
      for (int64_t i = 0; i < std::ssize(question.answer); ++i) {
        rows.push_back(fed - std::ssize(question.answer) + i);
        answers.push_back(question.answer[i]);
      }
      num_answer_tokens.push_back(question.answer.size());
      items.push_back({tasks[t].length, question.depth, static_cast<int64_t>(t), true, 0});
    }
  }
  if (forks.empty()) return;
  const at::Tensor hidden = engine.extend(ids, inputs, Engine::Rows::kAll);
  const TokenScores scored = score_tokens(
      engine, hidden.index_select(0, at::tensor(rows, at::kLong).to(hidden.device())), answers);
  NeedleItem* item = &items[items.size() - forks.size()];
  size_t at = 0;  // in scored
  for (size_t q = 0; q < forks.size(); ++q, ++item) {
    for (size_t i = 0; i < num_answer_tokens[q]; ++i, ++at) {
      item->correct &= scored.best[at];
      item->logprob += scored.logprob[at] / kNeedleDigits;
    }
  }
}

}  // namespace

std::vector<NeedleItem> score_needles(Engine& engine, const std::vector<NeedleTask>& tasks,
                                      const std::function<void(size_t done)>& on_haystack,
                                      Communicator& ranks) {
  at::NoGradGuard no_grad;
  std::vector<size_t> ends;  // of groups: as many haystacks as one decoder call takes, at least one
  int64_t tokens = 0;
  for (size_t t = 0; t < tasks.size(); ++t) {
    const auto more = static_cast<int64_t>(tasks[t].haystack.ids.size());
    if (tokens > 0 && tokens + more > engine.options().max_batch_tokens) {
      ends.push_back(t);
      tokens = 0;
    }
    tokens += more;
  }
  if (!tasks.empty()) ends.push_back(tasks.size());
  std::vector<NeedleItem> items;
  const std::vector<std::string> scored = deal(ranks, std::ssize(ends), [&](int64_t group) {
    std::vector<NeedleItem> of_group;
    score_group(engine, tasks, group == 0 ? 0 : ends[group - 1], ends[group], of_group);
    if (on_haystack) on_haystack(ends[group]);
    Packer packed;
    pack(of_group, packed);
    return packed.bytes();
  });
  for (const std::string& bytes : scored) {
    Unpacker packed(bytes);
    const std::vector<NeedleItem> of_group = unpack_needles(packed);
    items.insert(items.end(), of_group.begin(), of_group.end());
  }
  std::ranges::stable_sort(items, {}, &NeedleItem::haystack);
  return items;
}

void pack(const std::vector<NeedleItem>& items, Packer& to) {
  to.add(std::ssize(items));
  for (const NeedleItem& item : items) {
    to.add(item.length).add(item.depth).add(item.haystack);
    to.add(int64_t{item.correct}).add(item.logprob);
  }
}

std::vector<NeedleItem> unpack_needles(Unpacker& from) {
  std::vector<NeedleItem> items(from.integer());
  for (NeedleItem& item : items) {
    item.length = from.integer();
    item.depth = from.number();
    item.haystack = from.integer();
    item.correct = from.integer() != 0;
    item.logprob = from.number();
  }
  return items;
}

namespace {

std::vector<int64_t> clusters_of(const std::vector<NeedleItem>& items) {
  std::vector<int64_t> clusters;
  for (const NeedleItem& item : items) clusters.push_back(item.haystack);
  return clusters;
}

}  // namespace

Estimate needle_accuracy(const std::vector<NeedleItem>& items) {
  std::vector<double> values;
  for (const NeedleItem& item : items) values.push_back(item.correct ? 1 : 0);
  return clustered_mean(values, clusters_of(items));
}

Estimate needle_logprob(const std::vector<NeedleItem>& items) {
  std::vector<double> values;
  for (const NeedleItem& item : items) values.push_back(item.logprob);
  return clustered_mean(values, clusters_of(items));
}

std::vector<NeedleItem> items_of_length(const std::vector<NeedleItem>& items, int64_t length) {
  std::vector<NeedleItem> chosen;
  std::ranges::copy_if(items, std::back_inserter(chosen),
                       [&](const NeedleItem& item) { return item.length == length; });
  return chosen;
}

json::object needles_to_json(const std::vector<NeedleItem>& items) {
  std::map<int64_t, std::map<double, std::vector<NeedleItem>>> grouped;
  for (const NeedleItem& item : items) grouped[item.length][item.depth].push_back(item);
  json::object result;
  for (const auto& [length, by_depth] : grouped) {
    const std::vector<NeedleItem> all = items_of_length(items, length);
    json::object object = estimate_to_json("accuracy", needle_accuracy(all));
    const Estimate logprob = needle_logprob(all);
    object["logprob"] = number_or_null(logprob.mean);
    object["logprob_stderr"] = number_or_null(logprob.standard_error);
    json::array& depths = object["by_depth"].emplace_array();
    for (const auto& [depth, chosen] : by_depth) {
      json::object row = estimate_to_json("accuracy", needle_accuracy(chosen));
      row["depth"] = depth;
      depths.push_back(std::move(row));
    }
    result[std::to_string(length)] = std::move(object);
  }
  return result;
}

}  // namespace halo
