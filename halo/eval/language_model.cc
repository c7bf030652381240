#include "halo/eval/language_model.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/utf8.h"
#include "halo/data/pack.h"
#include "halo/engine/generate.h"
#include "halo/engine/stop_text.h"
#include "halo/eval/token_scores.h"
#include "halo/tokenizer/unicode.h"

namespace halo {
namespace {

EngineOptions engine_options(Kernels kernels, KvType kv_type, at::Device device) {
  EngineOptions options;
  options.kernels = kernels;
  options.kv_type = kv_type;
  // Most prompts are short, and a fork has a block of its own at least.
  options.block_size = 16;
  options.max_batch_tokens = device.is_cuda() ? 32768 : 4096;
  return options;
}

SchedulerOptions generation_options(const Engine& engine) {
  const bool on_gpu = engine.weights().embedding.value.is_cuda();
  SchedulerOptions options{.kernels = engine.options().kernels,
                           .kv_type = engine.options().kv_type,
                           .memory_bytes = int64_t{1} << (on_gpu ? 34 : 32),
                           .max_running = 256,
                           .prefill_chunk = engine.options().max_batch_tokens,
                           .tells_beside = on_gpu,
                           .forward = engine.options().forward};
  if (on_gpu) options.block_size = 256;
  return options;
}

SpecialTokens special_tokens(const Model& model, const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "tokenizer.json";
  const Tokenizer tokenizer(path);
  SpecialTokens special;
  special.begin = document_begin(tokenizer, path);
  special.ends = read_end_tokens(directory, model.config);
  special.before_all = model.config.bos_token_id.value_or(
      special.ends.empty() ? tokenizer.document_end() : special.ends[0]);
  return special;
}

size_t common_prefix(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

// Bytes of white space at the end of a text.
size_t trailing_space(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    const size_t at = code_before(text, begin);
    if (!is_space(code_at(text, at).code)) break;
    begin = at;
  }
  return text.size() - begin;
}

}  // namespace

LanguageModel::LanguageModel(const Model& model, const std::filesystem::path& directory,
                             Kernels kernels, KvType kv_type)
    : LanguageModel(std::make_shared<const DecoderWeights>(model.weights),
                    Tokenizer(directory / "tokenizer.json"), special_tokens(model, directory),
                    engine_options(kernels, kv_type, model.weights.embedding.value.device()),
                    default_min_shared(model.weights.embedding.value.device())) {
  directory_ = directory;
}

LanguageModel::LanguageModel(std::shared_ptr<const DecoderWeights> weights, Tokenizer tokenizer,
                             SpecialTokens special, const EngineOptions& options,
                             int64_t min_shared)
    : weights_(std::move(weights)),
      engine_(weights_, options),
      tokenizer_(std::make_shared<const Tokenizer>(std::move(tokenizer))),
      special_(std::move(special)),
      min_shared_(min_shared) {}

LanguageModel::LanguageModel(const LanguageModel& like,
                             std::shared_ptr<const DecoderWeights> weights,
                             const EngineOptions& options)
    : weights_(std::move(weights)),
      engine_(weights_, options),
      tokenizer_(like.tokenizer_),
      special_(like.special_),
      min_shared_(like.min_shared_),
      directory_(like.directory_) {}

std::vector<int64_t> LanguageModel::encode(const std::string& text) const {
  std::vector<int64_t> ids = tokenizer_->encode(text);
  const bool there = !special_.begin || (!ids.empty() && ids.front() == *special_.begin);
  if (!there) ids.insert(ids.begin(), *special_.begin);
  return ids;
}

// As lm-evaluation-harness splits them: white space at the prompt's end belongs to the
// continuation, whose tokens are those of the whole text behind as many as the prompt has.
LanguageModel::Pair LanguageModel::encode_pair(const ScoreRequest& request) const {
  Pair pair;
  const size_t space = trailing_space(request.prompt);
  const std::string prompt = request.prompt.substr(0, request.prompt.size() - space);
  const std::string whole = request.prompt + request.continuation;
  if (prompt.empty()) {
    pair.continuation = tokenizer_->encode(whole);
    pair.prompt = {special_.before_all};
    if (pair.continuation.size() > 1 && pair.continuation.front() == special_.before_all) {
      pair.continuation.erase(pair.continuation.begin());
    }
  } else {
    pair.prompt = encode(prompt);
    pair.continuation = encode(whole);
    pair.continuation.erase(
        pair.continuation.begin(),
        pair.continuation.begin() +
            static_cast<int64_t>(std::min(pair.prompt.size(), pair.continuation.size())));
  }
  if (pair.continuation.empty()) {
    throw_error("the continuation '{}' of '{}' has no token of its own", request.continuation,
                request.prompt);
  }
  return pair;
}

LanguageModel::Run LanguageModel::next_run(const std::vector<Pair>& pairs, size_t first) const {
  const std::vector<int64_t>& prompt = pairs[first].prompt;
  Run run{first, first + 1, static_cast<int64_t>(prompt.size())};
  for (; run.last < pairs.size(); ++run.last) {
    const std::vector<int64_t>& next = pairs[run.last].prompt;
    const auto shared = std::min<int64_t>(run.shared, common_prefix(prompt, next));
    if (shared < min_shared_ || 2 * shared < static_cast<int64_t>(next.size())) break;
    run.shared = shared;
  }
  if (run.last == first + 1) run.shared = 0;
  return run;
}

// Two calls of the decoder: prompts alone and what prompts share, then the rest of those that do.
void LanguageModel::score_batch(const std::vector<Pair>& pairs, std::span<const Run> runs,
                                std::vector<Score>& scores) {
  struct Call {
    std::vector<OwnedSequence> sequences;
    std::vector<int64_t> ids;
    std::vector<std::vector<int64_t>> inputs;
    std::vector<int64_t> wanted;  // rows behind the last tokens of each
    int64_t rows = 0;             // all of them
    std::vector<Prediction> predictions;

    void add(OwnedSequence sequence, std::vector<int64_t> input, int64_t last) {
      ids.push_back(sequence.id());
      sequences.push_back(std::move(sequence));
      inputs.push_back(std::move(input));
      wanted.push_back(last);
      rows += last;
    }
    // What the rows of the sequence that was added last predict.
    void predict(size_t pair, std::span<const int64_t> targets) {
      const auto count = static_cast<int64_t>(targets.size());
      for (int64_t t = 0; t < count; ++t) {
        predictions.push_back({pair, rows - count + t, targets[t]});
      }
    }
  };
  Call first, second;
  const auto input_of = [](const Pair& pair, int64_t from) {
    std::vector<int64_t> input(pair.prompt.begin() + from, pair.prompt.end());
    input.insert(input.end(), pair.continuation.begin(), pair.continuation.end() - 1);
    return input;
  };
  std::vector<at::Tensor> hidden;
  const auto run_call = [&](Call& call) {
    if (call.ids.empty()) return;
    const at::Tensor all = engine_.extend(call.ids, call.inputs, call.wanted);
    std::vector<int64_t> rows;
    for (const Prediction& p : call.predictions) rows.push_back(p.row);
    hidden.push_back(all.index_select(0, at::tensor(rows, at::kLong).to(all.device())));
  };

  for (const Run& run : runs) {
    if (run.shared == 0) {
      const Pair& pair = pairs[run.first];
      first.add(OwnedSequence(engine_), input_of(pair, 0), std::ssize(pair.continuation));
      first.predict(run.first, pair.continuation);
      continue;
    }
    const auto is_whole = [&](const Pair& pair) { return std::ssize(pair.prompt) == run.shared; };
    const std::span all(&pairs[run.first], run.last - run.first);
    const std::vector<int64_t>& prompt = all.front().prompt;
    first.add(OwnedSequence(engine_), {prompt.begin(), prompt.begin() + run.shared},
              std::ranges::any_of(all, is_whole) ? 1 : 0);
    for (size_t p = run.first; p < run.last; ++p) {
      if (is_whole(pairs[p])) first.predict(p, std::span(pairs[p].continuation).first(1));
    }
  }
  run_call(first);
  for (size_t r = 0; r < runs.size(); ++r) {
    for (size_t p = runs[r].first; runs[r].shared > 0 && p < runs[r].last; ++p) {
      const Pair& pair = pairs[p];
      std::vector<int64_t> input = input_of(pair, runs[r].shared);
      if (input.empty()) continue;  // one token, behind the shared prompt
      const bool begun = std::ssize(pair.prompt) == runs[r].shared;
      const auto targets = std::span(pair.continuation).subspan(begun ? 1 : 0);
      second.add(first.sequences[r].fork(), std::move(input), std::ssize(targets));
      second.predict(p, targets);
    }
  }
  run_call(second);

  std::vector<Prediction> predictions = std::move(first.predictions);
  predictions.insert(predictions.end(), second.predictions.begin(), second.predictions.end());
  std::vector<int64_t> targets;
  for (const Prediction& p : predictions) targets.push_back(p.target);
  const TokenScores tokens = score_tokens(engine_, at::cat(hidden), targets);
  for (size_t i = 0; i < predictions.size(); ++i) {
    Score& score = scores[predictions[i].pair];
    score.loglikelihood += tokens.logprob[i];
    score.greedy = score.greedy && tokens.best[i];
  }
}

std::vector<Score> LanguageModel::score(const std::vector<ScoreRequest>& requests) {
  at::NoGradGuard no_grad;
  std::vector<Pair> pairs;
  for (const ScoreRequest& request : requests) pairs.push_back(encode_pair(request));
  std::vector<Score> scores(pairs.size());
  // A batch is bounded by the memory of its sequences, whose states are kept in whole blocks.
  const auto in_blocks = [block = engine_.options().block_size](int64_t tokens) {
    return (tokens + block - 1) / block * block;
  };
  std::vector<Run> runs;
  int64_t tokens = 0;
  for (size_t first = 0; first < pairs.size(); first = runs.back().last) {
    const Run run = next_run(pairs, first);
    int64_t size = in_blocks(run.shared);
    for (size_t p = run.first; p < run.last; ++p) {
      const size_t all = pairs[p].prompt.size() + pairs[p].continuation.size();
      size += in_blocks(static_cast<int64_t>(all) - run.shared);
    }
    if (!runs.empty() && tokens + size > engine_.options().max_batch_tokens) {
      score_batch(pairs, runs, scores);
      runs.clear();
      tokens = 0;
    }
    runs.push_back(run);
    tokens += size;
  }
  if (!runs.empty()) score_batch(pairs, runs, scores);
  return scores;
}

std::vector<std::string> LanguageModel::generate_until(
    const std::vector<GenerateRequest>& requests) {
  std::vector<std::string> texts(requests.size());
  std::vector<Request> all;
  // What of the text is certain: more of it is there to find a stop in than to be part of it.
  struct Reading {
    StreamDecoder stream;
    StopText stop;
  };
  std::vector<Reading> readings;
  readings.reserve(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const GenerateRequest& request = requests[i];
    readings.push_back({StreamDecoder(*tokenizer_), StopText(request.stops)});
    Reading& reading = readings.back();
    Request& asked = all.emplace_back();
    asked.prompt =
        request.prompt.empty() ? std::vector<int64_t>{special_.before_all} : encode(request.prompt);
    asked.max_tokens = request.max_tokens;
    asked.stop_ids = special_.ends;
    asked.on_token = [&reading, &text = texts[i]](const TokenEvent& event) {
      text += reading.stop.push(reading.stream.push(event.token));
      return !reading.stop.stopped();
    };
    asked.on_finish = [&reading, &text = texts[i]](const Finish&) {
      text += reading.stop.push(reading.stream.finish());
      text += reading.stop.finish();
    };
  }
  Scheduler scheduler(weights_, generation_options(engine_));
  answer(scheduler, std::move(all));
  written_predictions_ += scheduler.engine().num_predictions();
  return texts;
}

}  // namespace halo
