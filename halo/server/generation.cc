#include "halo/server/generation.h"

#include <atomic>
#include <charconv>
#include <chrono>
#include <random>
#include <span>

#include "halo/base/files.h"
#include "halo/base/random.h"
#include "halo/server/answer_rules.h"

namespace halo {

std::vector<std::string> read_stops(const Fields& fields, std::string_view key) {
  const json::value* value = fields.find(key);
  if (value == nullptr) return {};
  std::vector<std::string> stops;
  const auto add = [&](const json::value& stop) {
    if (!stop.is_string()) {
      fields.refuse(key, fmt::format("expected text or a list of texts, got {}", kind_of(stop)),
                    "invalid_type");
    }
    if (std::ssize(stop.get_string()) > kMaxStopBytes)
      fields.refuse(key, fmt::format("a text is longer than {} bytes", kMaxStopBytes));
    if (!stop.get_string().empty()) stops.emplace_back(stop.get_string());
  };
  if (const auto* list = value->if_array()) {
    if (std::ssize(*list) > kMaxStops)
      fields.refuse(key, fmt::format("expected {} texts at most, got {}", kMaxStops, list->size()));
    for (const json::value& stop : *list) add(stop);
  } else {
    add(*value);
  }
  return stops;
}

namespace {

std::vector<std::pair<int64_t, double>> read_bias(const Fields& fields) {
  std::vector<std::pair<int64_t, double>> out;
  const json::object* bias = fields.object("logit_bias");
  if (bias == nullptr) return out;
  if (std::ssize(*bias) > kMaxBias)
    fields.refuse("logit_bias", fmt::format("expected {} tokens at most", kMaxBias));
  const Fields inside(*fields.find("logit_bias"), fields.path("logit_bias"));
  for (const auto& [key, value] : *bias) {
    int64_t id = 0;
    const auto read = std::from_chars(key.data(), key.data() + key.size(), id);
    if (read.ec != std::errc() || read.ptr != key.data() + key.size() || id < 0)
      inside.refuse(key, "expected the number of a token as the key");
    const std::optional<double> add = inside.number(key, -100, 100);
    if (add) out.emplace_back(id, *add);
  }
  return out;
}

SampleArgs read_sampling(const Fields& fields) {
  SampleArgs out;
  out.temperature = fields.number("temperature", 0, 100).value_or(1);
  out.top_p = fields.number("top_p", 0, 1).value_or(out.top_p);
  out.min_p = fields.number("min_p", 0, 1).value_or(out.min_p);
  // Some clients say "all" as -1.
  out.top_k = std::max<int64_t>(0, fields.integer("top_k", -1, kMaxTokens).value_or(0));
  out.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0);
  out.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0);
  out.repetition_penalty = fields.number("repetition_penalty", 0.01, 100).value_or(1);
  out.logit_bias = read_bias(fields);
  return out;
}

// What we cannot do is refused rather than left out silently.
void refuse_unsupported(const Fields& fields) {
  if (const auto suffix = fields.text("suffix"); suffix && !suffix->empty())
    fields.refuse("suffix", "is not supported", "unsupported_parameter");
}

}  // namespace

Generation read_generation(const Fields& fields) {
  Generation out;
  out.model = fields.text("model").value_or("");
  out.sample = read_sampling(fields);
  out.n = fields.integer("n", 1, kMaxChoices).value_or(1);
  const int64_t best_of = fields.integer("best_of", 1, kMaxLogprobs).value_or(out.n);
  if (best_of != out.n)
    fields.refuse("best_of", "is supported only where it equals 'n'", "unsupported_value");
  constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
  out.seed = fields.integer("seed", -kAny, kAny);
  out.stop = read_stops(fields, "stop");
  out.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  out.skip_special_tokens = fields.boolean("skip_special_tokens").value_or(true);
  out.stream = fields.boolean("stream").value_or(false);
  out.return_progress = fields.boolean("return_progress").value_or(false);
  out.cache_salt = fields.text("cache_salt").value_or("");
  if (fields.object("stream_options") != nullptr) {
    const Fields options(*fields.find("stream_options"), fields.path("stream_options"));
    out.include_usage = options.boolean("include_usage").value_or(false);
  }
  out.schema = read_response_format(fields, "response_format");
  refuse_unsupported(fields);
  for (const char* heeded_by_nobody : {"user", "metadata", "store"}) fields.find(heeded_by_nobody);
  return out;
}

std::string AnswerParts::text(Piece::Kind kind) const {
  std::string out;
  for (const Piece& piece : pieces) {
    if (piece.kind == kind) out += piece.text;
  }
  return out;
}

std::vector<ToolCall> AnswerParts::calls() const {
  std::vector<ToolCall> out;
  for (const Piece& piece : pieces) {
    if (piece.kind == Piece::Kind::kToolCall) out.push_back(piece.call);
  }
  return out;
}

std::string make_id(std::string_view prefix, int letters) {
  constexpr std::string_view kLetters =
      "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const Random random(static_cast<uint64_t>(fresh_seed()), "id");
  std::string out(prefix);
  for (int i = 0; i < letters; ++i) {
    out += kLetters[static_cast<size_t>(random.below(static_cast<uint64_t>(i), 62))];
  }
  return out;
}

uint64_t salt_of(const std::string& cache_salt) {
  if (cache_salt.empty()) return 0;
  const std::string hash = hash_hex(std::as_bytes(std::span(cache_salt)));
  return std::stoull(hash.substr(0, 16), nullptr, 16);
}

int64_t fresh_seed() {
  static const Random random((uint64_t{std::random_device()()} << 32) | std::random_device()(),
                             "server");
  static std::atomic<uint64_t> next = 0;
  return static_cast<int64_t>(random.bits(next++) >> 11);
}

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace halo
