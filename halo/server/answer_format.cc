#include "halo/server/answer_format.h"

#include "halo/base/json_text.h"

namespace halo {

std::string sse(const json::value& data, std::string_view name) {
  std::string out;
  if (!name.empty()) out = fmt::format("event: {}\n", name);
  return out + "data: " + format_json_line(data) + "\n\n";
}

std::string AnswerFormat::progress(int64_t, int64_t) {
  return "";
}

std::string AnswerFormat::prompt(size_t, const AnswerParts&) {
  return "";
}

std::string AnswerFormat::failed(const ApiError& error) {
  return sse(error.to_json());
}

json::object usage_json(const Usage& usage) {
  json::object details{{"cached_tokens", usage.cached_tokens}};
  if (!usage.cache_miss_reason.empty()) details["cache_miss_reason"] = usage.cache_miss_reason;
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", std::move(details)}};
}

json::object timings_json(const Usage& usage) {
  const int64_t read = usage.prompt_tokens - usage.cached_tokens;
  const auto rate = [](int64_t count, double seconds) {
    return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
  };
  return {{"cache_n", usage.cached_tokens},
          {"prompt_n", read},
          {"prompt_ms", usage.prefill_seconds * 1e3},
          {"prompt_per_second", rate(read, usage.prefill_seconds)},
          {"predicted_n", usage.completion_tokens},
          {"predicted_ms", usage.decode_seconds * 1e3},
          {"predicted_per_second", rate(usage.completion_tokens, usage.decode_seconds)}};
}

const char* finish_word(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop:
    case FinishReason::kStopString:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kToolCalls:
      return "tool_calls";
  }
  return "stop";
}

json::object progress_json(int64_t done, int64_t of) {
  return {{"processed", done}, {"total", of}};
}

std::string stream_end(const Generation& generation, json::object chunk, const Usage& usage) {
  const std::string done = "data: [DONE]\n\n";
  if (!generation.include_usage) return done;
  chunk["choices"] = json::array();
  chunk["usage"] = usage_json(usage);
  chunk["timings"] = timings_json(usage);
  return sse(chunk) + done;
}

}  // namespace halo
