#include "halo/pipeline/synthesize.h"

#include <algorithm>
#include <chrono>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/progress.h"
#include "halo/base/random.h"
#include "halo/data/needle.h"
#include "halo/data/pack.h"
#include "halo/engine/generate.h"
#include "halo/formats/safetensors.h"
#include "halo/runtime/machine.h"

namespace halo {
namespace {

// A Transformer trained on cut documents never saw a first token with something before it, so a
// document cannot be asked for with an end token: its first token of text is drawn here, among
// those that begin with a capital letter, behind the space that the tokenizer puts in front of a
// text if it does.
std::vector<int64_t> first_tokens(const Tokenizer& tokenizer) {
  const std::vector<int64_t> letter = tokenizer.encode("A");
  const bool puts_space = !letter.empty() && tokenizer.token_bytes(letter.front()).starts_with(' ');
  std::vector<int64_t> out;
  for (int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string bytes = tokenizer.token_bytes(id);
    const size_t space = puts_space ? 1 : 0;
    if (puts_space && !bytes.starts_with(' ')) continue;
    if (bytes.size() > 1 + space && bytes[space] >= 'A' && bytes[space] <= 'Z') out.push_back(id);
  }
  if (out.empty()) throw_error("the tokenizer has no token that begins with a capital letter");
  return out;
}

// The hash of the file, or those of the shards and their index by their names.
json::value weight_hashes(const std::filesystem::path& model) {
  const std::vector<std::filesystem::path> paths = WeightFiles(model).paths();
  if (paths.size() == 1) return json::value(hash_file(paths.front()));
  json::object hashes;
  for (const auto& path : paths) hashes[path.filename().string()] = hash_file(path);
  return hashes;
}

// The model of `answers_by`, whose tokens are those of `tokenizer`.
std::unique_ptr<Scheduler> answering_scheduler(const SynthesizeArgs& args,
                                               const std::string& tokenizer_hash,
                                               const Machine& machine,
                                               const SchedulerOptions& options) {
  if (!args.chat)
    throw_error("--answers-by {}: only conversations have answers; add --chat", args.answers_by);
  if (hash_file(std::filesystem::path(args.answers_by) / "tokenizer.json") != tokenizer_hash) {
    throw_error("--answers-by {}: has another tokenizer than {}", args.answers_by, args.teacher);
  }
  const Model model =
      load_model(args.answers_by, ParameterStore::Use::kFrozen, machine.compute, machine.device);
  return std::make_unique<Scheduler>(std::make_shared<DecoderWeights>(model.weights), options);
}

}  // namespace

json::object synthesize(const SynthesizeArgs& args) {
  at::NoGradGuard no_grad;
  constexpr int64_t kHopeless = 256;  // documents
  constexpr int64_t kMostBatches = 64;
  const Machine machine = open_machine(args.machine);
  const Model teacher =
      load_model(args.teacher, ParameterStore::Use::kFrozen, machine.compute, machine.device);
  const std::filesystem::path tokenizer_path =
      std::filesystem::path(args.teacher) / "tokenizer.json";
  const Tokenizer tokenizer(tokenizer_path);
  const int64_t end = tokenizer.document_end();
  const std::optional<int64_t> begin = document_begin(tokenizer, tokenizer_path);
  std::optional<ChatForm> chat;
  if (args.chat) chat.emplace(args.teacher, tokenizer);
  const std::vector<int64_t> ends = read_end_tokens(args.teacher, teacher.config);
  const std::vector<int64_t> first = chat ? std::vector<int64_t>{} : first_tokens(tokenizer);
  SchedulerOptions options = scheduler_options(machine);
  options.max_running = args.batch;
  Scheduler scheduler(std::make_shared<DecoderWeights>(teacher.weights), options);
  const std::string tokenizer_hash = hash_file(tokenizer_path);
  json::object provenance{{"made_by", args.command},
                          {"teacher_weights", weight_hashes(args.teacher)}};
  std::unique_ptr<Scheduler> other;
  if (!args.answers_by.empty()) {
    other = answering_scheduler(args, tokenizer_hash, machine, options);
    provenance["answers_by_weights"] = weight_hashes(args.answers_by);
  }
  ShardFolderWriter writer(args.out, tokenizer_hash, tokenizer.vocab_size(),
                           json::serialize(provenance), int64_t{1} << 26);
  const Random random(static_cast<uint64_t>(args.seed), "synthesize.first");
  const int64_t own_tokens = begin ? 3 : 2;  // the first ones and the end token
  if (args.length <= own_tokens) {
    throw_error("--length {}: such a document has nothing to sample; give {} or more", args.length,
                own_tokens + 1);
  }
  Request request{.max_tokens = args.length - own_tokens,
                  .sample = args.sample,
                  .seed = args.seed,
                  .stop_ids = {end}};
  if (begin) request.stop_ids.push_back(*begin);  // another document would begin
  Progress progress("synthesize", args.tokens);
  // As they come, not only a batch of documents at a time.
  const auto start = std::chrono::steady_clock::now();
  int64_t sampled_tokens = 0;
  request.on_token = [&](const TokenEvent&) {
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    ++sampled_tokens;
    progress.update(
        std::min(sampled_tokens, args.tokens),
        fmt::format("{:.0f} tok/s", static_cast<double>(sampled_tokens) / time.count()));
    return true;
  };
  const NeedleWriter needles(tokenizer, begin);
  int64_t tokens = 0, documents = 0, dropped = 0;
  const auto continue_first_tokens = [&](int64_t from, int64_t count) {
    std::vector<Request> requests;
    for (int64_t i = 0; i < count; ++i) {
      request.stream = from + i;
      request.prompt = {
          first[random.below(static_cast<uint64_t>(from + i), static_cast<int64_t>(first.size()))]};
      if (begin) request.prompt.insert(request.prompt.begin(), *begin);
      requests.push_back(request);
    }
    const std::vector<Answer> answers = answer(scheduler, requests);
    std::vector<std::optional<SampledDocument>> made;
    for (size_t i = 0; i < requests.size(); ++i) {
      std::vector<int64_t> document = std::move(requests[i].prompt);
      document.insert(document.end(), answers[i].tokens.begin(), answers[i].tokens.end());
      made.push_back(SampledDocument{std::move(document)});
    }
    return made;
  };
  while (tokens < args.tokens) {
    if (chat && documents >= kHopeless && dropped == documents) {
      throw_error("{}: none of {} conversations could be kept; was it trained to hold any?",
                  args.teacher, documents);
    }
    request.stream = documents;
    // As many as are missing, by what a document has held until now: `batch` of them run at a time
    // until the end of a round, where fewer and fewer do.
    const double missing = tokens == 0
                               ? 0
                               : static_cast<double>(args.tokens - tokens) *
                                     static_cast<double>(documents) / static_cast<double>(tokens);
    const int64_t most = kMostBatches * args.batch;
    const int64_t count = std::clamp(
        static_cast<int64_t>(std::min(missing, static_cast<double>(most))), args.batch, most);
    const auto made = chat ? make_conversations(scheduler, other ? *other : scheduler, *chat,
                                                tokenizer, ends, count, request, args.length)
                           : continue_first_tokens(documents, count);
    for (const std::optional<SampledDocument>& sampled : made) {
      if (!sampled) {
        ++dropped;
        continue;
      }
      std::vector<int64_t> document = sampled->tokens;
      if (document.back() != end) document.push_back(end);
      tokens += static_cast<int64_t>(document.size());
      // A model may have more rows than its tokenizer has tokens.
      const bool is_text = std::ranges::max(document) < tokenizer.vocab_size();
      if (!is_text || needles.mentions_needle(document)) {
        ++dropped;
        continue;
      }
      std::vector<uint8_t> marks;
      if (chat) {
        marks.resize(document.size(), static_cast<uint8_t>(NeedleMark::kText));
        std::fill_n(marks.begin(), sampled->asked, static_cast<uint8_t>(NeedleMark::kAsked));
      }
      writer.add_document(document, marks);
    }
    documents += count;
  }
  writer.finish();
  progress.finish(fmt::format("{} documents, {} of them kept", documents, documents - dropped));
  return {{"documents_sampled", documents},
          {"documents_dropped", dropped},
          {"tokens_sampled", tokens},
          {"shards", writer.num_shards()}};
}

}  // namespace halo
